"""How sure a score is: intervals and sets of classes from the errors on validation data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equipoise.training.calibration import subset_key
from equipoise.training.model_info import ModelInfo

Interval = dict[str, tuple[float, float]]


def check_level(info: ModelInfo, level: float) -> None:
    """Refuse a level that the saved model does not hold.

    Raises:
        ValueError: it is none of them.
    """
    if info.calibration is not None and level not in info.calibration.levels:
        known = ", ".join(f"{each:g}" for each in info.calibration.levels)
        raise ValueError(f"Parameter `level` should be one of {known}, which the model holds. Found `level = {level}`.")


def interval_of(
    info: ModelInfo, values: Mapping[str, float], modalities: Sequence[str], level: float
) -> tuple[Interval | None, tuple[str, ...] | None, str]:
    """The interval of each target, or the set of likely classes, by split conformal prediction.

    An interval is the value plus and minus the quantile of absolute errors among validation samples that were read from
    the same modalities, cut to the range of the labels. A class is likely if 1 - its probability is no more than that
    quantile; the most probable one always is.

    Args:
        info: of the model; its ``calibration`` holds the quantiles.
        values: as `ClipScore.values`.
        modalities: those that were read.
        level: the probability with which the truth is inside, one of the calibration's.

    Returns:
        The interval or None, the classes or None, and why both are None.
    """
    if info.calibration is None:
        return None, None, "no interval: the model was saved without errors on validation data"
    subset = info.calibration.subsets.get(subset_key(modalities))
    if subset is None:
        return None, None, f"no interval: no errors are known for {' and '.join(modalities)} without the others"
    quantiles = subset.quantiles[info.calibration.levels.index(level)]
    known = [each for each in quantiles if each is not None]
    if len(known) < len(quantiles):
        return None, None, f"no interval: {subset.samples} validation samples are too few for a level of {level:g}"
    if info.labels.kind == "classification":
        first = sorted(values, key=values.__getitem__, reverse=True)
        return None, tuple(name for i, name in enumerate(first) if not i or 1 - values[name] <= known[0]), ""
    low, high = info.labels.range or (float("-inf"), float("inf"))
    inside = {
        name: (min(max(value - error, low), high), min(max(value + error, low), high))
        for (name, value), error in zip(values.items(), known, strict=True)
    }
    return inside, None, ""

"""What a comparison finds: figures, paired tests and ranks, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from equipoise.experiments.ranks import Ranking
from equipoise.experiments.rows import Role

Outcome = Literal["better", "worse", "unclear"]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one method reaches on one dataset with one model.

    Attributes:
        dataset: its name.
        model: its name.
        method: its name.
        role: a method, or one of the controls.
        metric: the dataset's.
        mean: over seeds; NaN where it is undefined in one of them.
        sd: sample standard deviation over seeds; NaN for one seed.
        values: one a seed.
        seeds: in the order of the values.
        low: lower end of the bootstrap interval over test samples, of each sample's mean over seeds; NaN for a metric
            that is no mean over samples.
        high: upper end.
        trials: settings tried for it on validation data; None where not known.
        paths: run directories, in the order of the seeds.
        marks: what must stand beside it.
    """

    dataset: str
    model: str
    method: str
    role: Role
    metric: str
    mean: float
    sd: float
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    low: float
    high: float
    trials: int | None
    paths: tuple[str, ...]
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A method against one of its controls, on the seeds that both have. Differences are positive where it is better.

    Attributes:
        dataset: its name.
        model: its name.
        method: its name.
        against: the control's name.
        against_role: ``"plain"`` or ``"multi_loss"``.
        metric: the dataset's.
        difference: of the means, in the metric's unit.
        low: lower end of its interval over seeds and samples; NaN where `p_both` is.
        high: upper end.
        seeds: that both have.
        favoured: in how many of these the method is better.
        p_samples: permutation test over samples of scores averaged over seeds: of these trainings alone.
        p_seeds: sign-flip test over seeds.
        p_least: the least `p_seeds` that so many seeds can give.
        p_both: `crossed_test` over seeds and samples; NaN for one seed or a metric that is no mean over samples.
        corrected: by Holm over all pairs, of `p_both` (of `p_seeds` where the metric is no mean over samples); NaN for
            one seed.
        effect: Hedges' g over seeds.
        superiority: chance that a seed of the method is better than one of the control.
        outcome: ``"better"`` or ``"worse"`` where `corrected` is below the level, else ``"unclear"``.
    """

    dataset: str
    model: str
    method: str
    against: str
    against_role: Role
    metric: str
    difference: float
    low: float
    high: float
    seeds: tuple[int, ...]
    favoured: int
    p_samples: float
    p_seeds: float
    p_least: float
    p_both: float
    corrected: float
    effect: float
    superiority: float
    outcome: Outcome = "unclear"


@dataclass(frozen=True, slots=True)
class Analysis:
    """All figures, all pairs, a ranking over datasets for each model that has two or more."""

    figures: tuple[Figure, ...]
    pairs: tuple[Pair, ...]
    rankings: Mapping[str, Ranking]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for what is NaN or infinite."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

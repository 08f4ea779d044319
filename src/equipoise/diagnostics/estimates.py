"""A mean over samples, with what the samples leave open and what was drawn in computing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from equipoise.functional.statistics import bootstrap_interval, paired_permutation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over samples.

    Attributes:
        value: the mean.
        low, high: 95 % percentile bootstrap interval over samples; differences are resampled in pairs.
        p: two-sided sign-flip test that the mean is 0, of differences; None where 0 means nothing. Not corrected for
            how many are looked at: :func:`equipoise.functional.statistics.holm`.
        error: standard error of what was drawn at random in computing it, the samples given; 0 where it is exact.
        points: ``[N]``, whose mean it is, so that two can be compared on the same samples; None where they were not
            kept. Neither shown nor written.
    """

    value: float
    low: float
    high: float
    p: float | None = None
    error: float = 0.0
    points: Floats | None = field(default=None, repr=False, compare=False)

    def reversed(self) -> Estimate:
        """The difference taken the other way round."""
        return Estimate(-self.value, -self.high, -self.low, self.p, self.error)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        found: dict[str, Any] = plain(self)
        return found


def estimate(
    values: Floats,
    *,
    test: bool = True,
    error: float = 0.0,
    resamples: int = 1000,
    permutations: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean, interval and test of one number a sample.

    The test asks whether signs are as likely either way, as those of a paired difference are if the two could be
    swapped. Of 2000 swaps the smallest p is 1 / 2001.

    Args:
        values: ``[N]``; scores, or paired differences of scores.
        test: whether 0 is a hypothesis.
        error: of what was drawn to get at the values.
        resamples: of the bootstrap.
        permutations: signs drawn; beyond 16 samples.
        seed: of both.
    """
    given = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    low, high = bootstrap_interval(lambda rows: given[rows].mean(dim=1), len(given), resamples=resamples, seed=seed)
    p = paired_permutation(given, torch.zeros_like(given), permutations=permutations, seed=seed).p if test else None
    return Estimate(float(given.mean()), low, high, p, error, given.numpy())


def paired(
    first: Floats, second: Floats, *, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """How much higher the first lies on the same samples, with the interval of a paired bootstrap.

    Args:
        first: ``[N]``, what each sample adds to one score.
        second: ``[N]``, to the other.
        groups: ``[N]``, the video or speaker of each sample; whole groups are resampled then.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: lengths that differ.
    """
    if first.shape != second.shape or (groups is not None and len(groups) != len(first)):
        found = f"{len(first)} and {len(second)}" + ("" if groups is None else f" with {len(groups)} groups")
        raise ValueError(f"Parameters `first` and `second` should be of the same samples. Found {found}.")
    gap = first - second
    member = np.arange(len(gap)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    sums, counts = (torch.from_numpy(np.bincount(member, weights=each)) for each in (gap, np.ones(len(gap))))
    low, high = bootstrap_interval(
        lambda rows: sums[rows].sum(dim=1) / counts[rows].sum(dim=1), len(sums), resamples=resamples, seed=seed
    )
    return Estimate(float(gap.mean()), low, high, points=gap)


def jackknife_error(function: Callable[[Floats], float], groups: Floats) -> float:
    r"""Standard error of a function of a mean over groups that were drawn alike: Tukey's jackknife.

    $$
    \sqrt{\frac{G - 1}{G} \sum_g (\theta_{-g} - \bar\theta)^2}
    $$

    with $\theta_{-g}$ the function of the mean over all groups but g.

    Args:
        function: of an array like one group.
        groups: ``[G, ...]``, two or more.
    """
    total, count = groups.sum(axis=0), len(groups)
    return spread_of_jackknife([function((total - group) / (count - 1)) for group in groups])


def spread_of_jackknife(left_out: Sequence[float]) -> float:
    """The standard error from what each left-out group leaves."""
    values = np.asarray(left_out, dtype=np.float64)
    return float(np.sqrt((len(values) - 1) * values.var()))


def plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples as dicts, lists and numbers; fields that ``repr`` doesn't show are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value) if each.repr}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

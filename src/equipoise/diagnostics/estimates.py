"""A mean over samples, with what the samples leave open and what was drawn in computing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
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
    """

    value: float
    low: float
    high: float
    p: float | None = None
    error: float = 0.0

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
    return Estimate(float(given.mean()), low, high, p, error)


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
    """Dataclasses, arrays and tuples as dicts, lists and numbers; fields that begin with ``_`` are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value) if each.name[0] != "_"}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

"""Spread and significance: bootstrap intervals, paired tests, Holm's correction. Pure and seeded.

Everything computes in float64 on the CPU and draws from its own generator: the global ones are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Statistic = Callable[[Tensor], Tensor]
"""From row numbers `[R, n]` (int64, R resamples of n samples) to R values `[R]`."""

EXACT_UP_TO = 16  # 2^16 sign patterns at most are counted out; beyond that they are drawn
_BLOCK = 2**20  # numbers held at once, so that memory stays flat in the number of resamples


class PairedBootstrap(NamedTuple):
    """Result of :func:`paired_bootstrap`."""

    difference: float
    low: float
    high: float
    p: float


class PairedPermutation(NamedTuple):
    """Result of :func:`paired_permutation`."""

    difference: float
    p: float
    permutations: int
    exact: bool


def _vector(name: str, values: Sequence[float] | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        tensor = values.detach().to("cpu", torch.float64)
    else:
        tensor = torch.tensor(values, dtype=torch.float64)
    if tensor.ndim != 1 or not len(tensor):
        raise ValueError(f"Parameter `{name}` should be a vector of one or more. Found shape {list(tensor.shape)}.")
    return tensor


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"Parameter `{name}` should be 1 or more. Found `{name} = {value}`.")


def mean_std(values: Sequence[float] | Tensor) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1) of one number a seed.

    The deviation of a single value is NaN: one run says nothing about spread.

    >>> mean_std([1.0, 2.0, 3.0])
    (2.0, 1.0)
    """
    tensor = _vector("values", values)
    return tensor.mean().item(), tensor.std().item() if len(tensor) > 1 else math.nan


def resample_rows(n: int, resamples: int, seed: int = 0) -> Iterator[Tensor]:
    """Draw n of n rows with replacement, `resamples` times, as blocks `[r, n]` (int64)."""
    _check_positive("n", n)
    _check_positive("resamples", resamples)
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        yield torch.randint(n, (min(block, resamples - start), n), generator=generator)


def percentile_interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The central `level` of resampled values `[R]`, NaN left out; (NaN, NaN) when nothing else is there."""
    if not 0 < level < 1:
        raise ValueError(f"Parameter `level` should be between 0 and 1. Found `level = {level}`.")
    tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.nanquantile(values.double(), tail).tolist()
    return low, high


def bootstrap_interval(
    statistic: Statistic, n: int, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over n samples (Efron, 1979).

    Args:
        statistic: row numbers `[R, n]` → values `[R]`. The mean of scores `[n]`: `lambda rows: scores[rows].mean(1)`.
        n: number of samples.
        resamples: how many times the n samples are drawn again, with replacement.
        level: the share of resamples inside the interval.
        seed: of the draws.

    Returns:
        `(low, high)`. Resamples on which the statistic is NaN are left out.

    Raises:
        ValueError: `n` or `resamples` below 1, `level` outside (0, 1), or a statistic of another shape.
    """
    return percentile_interval(torch.cat([_apply(statistic, r) for r in resample_rows(n, resamples, seed)]), level)


def _apply(statistic: Statistic, rows: Tensor) -> Tensor:
    values = statistic(rows).detach().double().cpu()
    if values.shape != rows.shape[:1]:
        raise ValueError(
            f"Parameter `statistic` should turn rows [R, n] into values [R]. "
            f"Found {list(rows.shape)} → {list(values.shape)}."
        )
    return values


def paired_bootstrap(
    first: Statistic, second: Statistic, n: int, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> PairedBootstrap:
    """Difference `first − second` of a statistic of two models on the same n samples.

    Both see the same resamples. `p` is two-sided, the percentile interval turned round: twice the smaller share of
    resamples on either side of 0 (ties on both), with the observed one added, so never 0.

    Args:
        first: rows `[R, n]` → values `[R]` of the first model.
        second: the same of the second.
        n: number of samples.
        resamples: how many times the n samples are drawn again, with replacement.
        level: of the interval.
        seed: of the draws.

    Raises:
        ValueError: as :func:`bootstrap_interval`.
    """
    drawn = torch.cat([_apply(first, rows) - _apply(second, rows) for rows in resample_rows(n, resamples, seed)])
    once = torch.arange(n)[None]
    low, high = percentile_interval(drawn, level)
    defined = drawn[~drawn.isnan()]
    side = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = min(1.0, 2 * (side + 1) / (len(defined) + 1)) if len(defined) else math.nan
    return PairedBootstrap((_apply(first, once) - _apply(second, once)).item(), low, high, p)


def paired_permutation(
    first: Sequence[float] | Tensor, second: Sequence[float] | Tensor, *, permutations: int = 10_000, seed: int = 0
) -> PairedPermutation:
    """Two-sided sign-flip test of the mean of paired differences (Fisher, 1935).

    Under the null each pair may be swapped. Up to 16 pairs all 2ⁿ swaps are counted; beyond that `permutations` of
    them are drawn and the observed one added: p = (1 + as extreme) / (1 + drawn). With n pairs p cannot fall below
    2¹⁻ⁿ: five seeds can never show p < 0.05, six can.

    Args:
        first: one score a sample or a seed, `[n]`.
        second: the other model's, in the same order.
        permutations: how many swaps are drawn when n > 16.
        seed: of the draws.

    Returns:
        `difference` (mean of first − second), `p`, `permutations` counted or drawn, and whether `exact`.

    Raises:
        ValueError: lengths differ, nothing to compare, a score is NaN or infinite, or `permutations` below 1.

    >>> paired_permutation([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).p
    0.25
    """
    left, right = _vector("first", first), _vector("second", second)
    if left.shape != right.shape:
        raise ValueError(
            f"Parameters `first` and `second` should be paired. Found {len(left)} and {len(right)} scores."
        )
    _check_positive("permutations", permutations)
    difference = left - right
    if not bool(difference.isfinite().all()):
        raise ValueError(
            f"Parameters `first` and `second` should be finite. Found {int((~difference.isfinite()).sum())} bad pairs."
        )
    n = len(difference)
    exact = n <= EXACT_UP_TO
    # sums of the same terms in another order differ in the last digits: those are ties
    threshold = difference.sum().abs() - 1e-12 * difference.abs().sum()
    signs = sign_flips(n, permutations, seed)
    extreme = sum(int(((block @ difference).abs() >= threshold).sum()) for block in signs)
    p = extreme / 2**n if exact else (1 + extreme) / (1 + permutations)
    return PairedPermutation(difference.mean().item(), p, 2**n if exact else permutations, exact)


def sign_flips(n: int, permutations: int, seed: int = 0) -> Iterator[Tensor]:
    """Signs of n pairs as blocks `[r, n]` of −1 and 1: all 2ⁿ up to 16 pairs, beyond that `permutations` drawn ones."""
    _check_positive("permutations", permutations)
    if n <= EXACT_UP_TO:
        yield _signs(torch.arange(2**n)[:, None] >> torch.arange(n) & 1)
        return
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _BLOCK // n)
    for start in range(0, permutations, block):
        yield _signs(torch.randint(2, (min(block, permutations - start), n), generator=generator))


def _signs(bits: Tensor) -> Tensor:
    return bits.double().mul_(2).sub_(1)


def holm(pvalues: Sequence[float] | Tensor) -> list[float]:
    """Holm's step-down correction (1979): adjusted p-values in the given order; reject where below the level.

    The i-th smallest of m becomes the largest of (m − j + 1) · p₍ⱼ₎ over j ≤ i, at most 1.

    Raises:
        ValueError: nothing given, or a value outside [0, 1].

    >>> holm([0.25, 0.125])
    [0.25, 0.25]
    """
    p = _vector("pvalues", pvalues)
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(f"Parameter `pvalues` should lie in [0, 1]. Found {p.tolist()}.")
    order = p.argsort(stable=True)
    stepped = (p[order] * torch.arange(len(p), 0, -1)).cummax(0).values.clamp(max=1)
    adjusted = torch.empty_like(p)
    adjusted[order] = stepped
    result: list[float] = adjusted.tolist()
    return result

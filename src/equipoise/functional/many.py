"""Intervals and tests of many vectors of one length: what is drawn for one serves all, and costs its time once."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.functional.statistics import EXACT_UP_TO, percentile_interval, resample_rows, sign_flips


def mean_intervals(
    scores: Tensor, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> list[tuple[float, float]]:
    """`bootstrap_interval` of the mean of each row, by the same draws.

    Args:
        scores: `[F, n]`, n samples of F things; each has its interval for itself.
        resamples: how many times the n samples are drawn again, with replacement.
        level: the share of resamples inside the interval.
        seed: of the draws.

    Returns:
        F times `(low, high)`.

    Raises:
        ValueError: scores of another shape, `resamples` below 1, or `level` outside (0, 1).
    """
    by_sample = _table("scores", scores).T
    n = len(by_sample)
    means = [_counts(rows) @ by_sample / n for rows in resample_rows(n, resamples, seed)]
    return [percentile_interval(column, level) for column in torch.cat(means).T]


def sign_flip_p(differences: Tensor, *, permutations: int = 10_000, seed: int = 0) -> list[float]:
    """p of `paired_permutation` for each row of paired differences, by the same draws.

    Args:
        differences: `[P, n]`, of n samples in P pairs of models.
        permutations: how many swaps are drawn when n > 16.
        seed: of the draws.

    Raises:
        ValueError: differences of another shape or not finite, or `permutations` below 1.
    """
    table = _table("differences", differences)
    if not bool(table.isfinite().all()):
        raise ValueError(
            f"Parameter `differences` should be finite. Found {int((~table.isfinite()).sum())} that are not."
        )
    # Sums of the same terms in another order differ in the last digits: those are ties.
    threshold = table.sum(1).abs() - 1e-12 * table.abs().sum(1)
    extreme, drawn = torch.zeros(len(table), dtype=torch.int64), 0
    for signs in sign_flips(table.shape[1], permutations, seed):
        extreme += ((signs @ table.T).abs() >= threshold).sum(0)
        drawn += len(signs)
    observed = int(table.shape[1] > EXACT_UP_TO)  # among all swaps it stands already
    found: list[float] = ((extreme + observed).double() / (drawn + observed)).tolist()
    return found


def _counts(rows: Tensor) -> Tensor:
    """How often each of n samples is in each draw: `[R, n]` row numbers → `[R, n]`."""
    draws, n = rows.shape
    places = rows + n * torch.arange(draws)[:, None]
    return torch.bincount(places.flatten(), minlength=draws * n).view(draws, n).double()


def _table(name: str, values: Tensor) -> Tensor:
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"Parameter `{name}` should be [F, n], neither of them 0. Found shape {list(values.shape)}.")
    return values.detach().to("cpu", torch.float64)

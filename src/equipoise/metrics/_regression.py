"""Regression: error and correlation of several outputs, calibration of intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from equipoise.metrics._inputs import as_floats, check_matrices, warn_undefined_corr

if TYPE_CHECKING:
    from equipoise.metrics._inputs import Values


class MultiRegressionScores(TypedDict):
    """Result of :func:`multi_regression`."""

    mae: float
    corr: float
    mae_per_output: list[float]
    corr_per_output: list[float]


class IntervalScores(TypedDict):
    """Result of :func:`interval_coverage`."""

    coverage: float
    width: float


def pearson(preds: Tensor, target: Tensor) -> Tensor:
    """Pearson's r down the rows: `[N, R]`, `[N, R]` → `[R]` float64; NaN where a column is constant."""
    # equality decides, not the variance: the mean of equal floats need not be that float
    constant = (preds == preds[:1]).all(0) | (target == target[:1]).all(0)
    r = (_standardised(preds) * _standardised(target)).sum(0).clamp(-1, 1)
    return r.masked_fill(constant, torch.nan)


def _standardised(values: Tensor) -> Tensor:
    centred = values.double() - values.double().mean(0)
    centred = centred / centred.abs().amax(0)  # keeps the squares of very large or small values in range
    length: Tensor = torch.linalg.vector_norm(centred, dim=0)
    return centred / length


def _multi_regression_compute(preds: Tensor, target: Tensor) -> MultiRegressionScores:
    preds, target = preds.cpu(), target.cpu()
    mae = (preds.double() - target.double()).abs().mean(0)
    corr = pearson(preds, target)
    return {
        "mae": mae.mean().item(),
        "corr": corr.mean().item(),
        "mae_per_output": mae.tolist(),
        "corr_per_output": corr.tolist(),
    }


def _warn_constant_outputs(scores: MultiRegressionScores) -> None:
    undefined = [i for i, r in enumerate(scores["corr_per_output"]) if r != r]
    if undefined:
        warn_undefined_corr(undefined)


def multi_regression(preds: Values, target: Values) -> MultiRegressionScores:
    """Mean absolute error and Pearson correlation of several outputs (POM: 17 traits).

    `corr` is the plain mean of the outputs' r. One constant output makes it NaN, with a warning: a mean over the rest
    would hide a dead output.

    Args:
        preds: predictions `[N, R]`.
        target: labels `[N, R]`.

    Returns:
        `mae`, `corr`, and both per output.

    Raises:
        ValueError: shapes differ, no samples, or a value is NaN or infinite.

    >>> multi_regression([[0.0, 1.0], [1.0, 3.0]], [[0.0, 2.0], [1.0, 1.0]])["mae_per_output"]
    [0.0, 1.5]
    """
    scores = _multi_regression_compute(*check_matrices(preds, target))
    _warn_constant_outputs(scores)
    return scores


def interval_coverage(lower: Values, upper: Values, target: Values) -> IntervalScores:
    """How often the label lies inside its predicted interval, and how wide the intervals are.

    A calibrated 90 % interval has `coverage` 0.9; of two calibrated ones the narrower is better.

    Args:
        lower: lower ends, `[N]` (or any one shape); ends belong to the interval.
        upper: upper ends.
        target: labels.

    Returns:
        `coverage` (fraction) and `width` (mean, in the label's unit).

    Raises:
        ValueError: shapes differ, no samples, a value is NaN or infinite, or an interval ends before it begins.

    >>> interval_coverage([0.0, 0.0], [1.0, 1.0], [1.0, 2.0])
    {'coverage': 0.5, 'width': 1.0}
    """
    low, high, label = as_floats("lower", lower), as_floats("upper", upper), as_floats("target", target)
    if not low.shape == high.shape == label.shape:
        raise ValueError(
            "Parameters `lower`, `upper` and `target` should have one shape. "
            f"Found {list(low.shape)}, {list(high.shape)} and {list(label.shape)}."
        )
    crossed = int((low > high).sum())
    if crossed:
        raise ValueError(f"Parameter `lower` should not be above `upper`. Found {crossed} of {low.numel()} above.")
    inside = (low <= label) & (label <= high)
    return {
        "coverage": inside.double().mean().item(),
        "width": (high.double() - low.double()).mean().item(),
    }

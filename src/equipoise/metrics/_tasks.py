"""One call for any task: the flat numbers that a training loop logs and selects on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from equipoise.functional.statistics import percentile_interval, resample_rows
from equipoise.metrics._classification import (
    ClassificationSamples,
    _classification_compute,
    _classification_counts,
    _classification_samples,
)
from equipoise.metrics._inputs import as_floats, check_classes, check_matrices, check_vectors, warn_undefined_corr
from equipoise.metrics._regression import _multi_regression_compute, pearson
from equipoise.metrics._sentiment import _check_scale, _sentiment_compute

if TYPE_CHECKING:
    from equipoise.metrics._inputs import Values

LOWER = ("loss", "mae", "nll", "ece")
HIGHER = (
    *("corr", "acc7", "acc5", "acc3", "acc2", "acc2_nn", "acc2_pn", "f1", "f1_nn", "f1_pn"),
    *("accuracy", "f1_weighted", "f1_macro"),
)


def better(metric_name: str) -> Literal["min", "max"]:
    """Whether a lower (`"min"`) or a higher (`"max"`) value of the metric is better.

    Raises:
        ValueError: the name is none of ours.

    >>> better("mae"), better("acc2_pn")
    ('min', 'max')
    """
    if metric_name in LOWER:
        return "min"
    if metric_name in HIGHER:
        return "max"
    raise ValueError(f"Parameter `metric_name` should be one of {', '.join(LOWER + HIGHER)}. Found {metric_name!r}.")


def _prepare(
    task: str, logits: Values, target: Values, scale: str | None
) -> tuple[int, Callable[[Tensor | None], dict[str, float]]]:
    """How many samples there are, and the function from rows of them (None: all) to flat scores."""
    if task not in ("regression", "classification"):
        raise ValueError(f"Parameter `task` should be 'regression' or 'classification'. Found `task = {task!r}`.")
    if scale is not None:
        _check_scale(scale, None)
    if task == "classification":
        scores, classes = check_classes(logits, target)
        samples = _classification_samples(scores.cpu(), classes.cpu())
        return len(classes), lambda rows: _classification_scalars(samples, rows)
    labels = as_floats("target", target)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if scale is not None:
            raise ValueError(
                f"Parameter `scale` should be None for {labels.shape[1]} outputs. Found `scale = {scale!r}`."
            )
        preds, labels = check_matrices(logits, labels)
        return len(labels), _of_rows(preds, labels, _multi_scalars)
    preds, labels = check_vectors(logits, labels)
    if scale is None:
        return len(labels), _of_rows(preds, labels, _plain_scalars)
    return len(labels), _of_rows(preds, labels, lambda p, t: _sentiment_compute(p, t, scale, None))


def _of_rows(
    preds: Tensor, labels: Tensor, compute: Callable[[Tensor, Tensor], dict[str, float]]
) -> Callable[[Tensor | None], dict[str, float]]:
    preds, labels = preds.cpu(), labels.cpu()
    return lambda rows: compute(preds, labels) if rows is None else compute(preds[rows], labels[rows])


def _classification_scalars(samples: ClassificationSamples, rows: Tensor | None) -> dict[str, float]:
    scores = _classification_compute(_classification_counts(samples, rows))
    return {
        "accuracy": scores["accuracy"],
        "f1_weighted": scores["f1_weighted"],
        "f1_macro": scores["f1_macro"],
        "nll": scores["nll"],
        "ece": scores["ece"],
    }


def _multi_scalars(preds: Tensor, target: Tensor) -> dict[str, float]:
    scores = _multi_regression_compute(preds, target)
    return {"mae": scores["mae"], "corr": scores["corr"]}


def _plain_scalars(preds: Tensor, target: Tensor) -> dict[str, float]:
    return {
        "mae": (preds.double() - target.double()).abs().mean().item(),
        "corr": pearson(preds[:, None], target[:, None]).item(),
    }


def evaluate_metrics(task: str, logits: Values, target: Values, *, scale: str | None = None) -> dict[str, float]:
    """The scalar metrics of a task, flat.

    Classification: `accuracy, f1_weighted, f1_macro, nll, ece` (:func:`classification`). Regression with `scale`:
    :func:`sentiment_regression`. Regression without it: `mae, corr`; for several outputs their means
    (:func:`multi_regression`).

    Args:
        task: `"regression"` or `"classification"`.
        logits: model output: `[N]` or `[N, R]` regression, `[N, C]` classification.
        target: labels: `[N]` or `[N, R]` regression, `[N]` class numbers.
        scale: of the regression labels: `"mosi"`, `"sims"` or None; no effect on classification.

    Raises:
        ValueError: unknown task or scale, shapes that differ, no samples, values NaN or infinite.

    >>> evaluate_metrics("regression", [1.0, 2.0], [2.0, 4.0])["mae"]
    1.5
    """
    _, compute = _prepare(task, logits, target, scale)
    scores = compute(None)
    if math.isnan(scores.get("corr", 0.0)):
        warn_undefined_corr()
    return scores


def metric_intervals(
    task: str,
    logits: Values,
    target: Values,
    *,
    scale: str | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """A percentile bootstrap interval over samples for every metric of :func:`evaluate_metrics`.

    All metrics see the same resamples. A resample on which a metric is undefined (NaN) is left out of its interval.

    Args:
        task: as :func:`evaluate_metrics`, and so `logits`, `target`, `scale`.
        logits: model output.
        target: labels.
        scale: `"mosi"`, `"sims"` or None.
        resamples: how many times the N samples are drawn again, with replacement.
        level: the share of resamples inside the interval.
        seed: of the draws; the global generators are not touched.

    Returns:
        `{metric: (low, high)}`.

    Raises:
        ValueError: as :func:`evaluate_metrics`.
    """
    samples, compute = _prepare(task, logits, target, scale)
    drawn = [compute(rows) for block in resample_rows(samples, resamples, seed) for rows in block]
    return {
        name: percentile_interval(torch.tensor([scores[name] for scores in drawn], dtype=torch.float64), level)
        for name in drawn[0]
    }

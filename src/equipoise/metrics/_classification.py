"""Classification: accuracy, F1, likelihood and calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

import torch
from torch import Tensor

from equipoise.metrics._counts import f1_macro, f1_per_class, f1_weighted
from equipoise.metrics._inputs import check_classes

if TYPE_CHECKING:
    from equipoise.metrics._inputs import Values

ECE_BINS = 15


class ClassificationScores(TypedDict):
    """Result of :func:`classification`."""

    accuracy: float
    f1_weighted: float
    f1_macro: float
    nll: float
    ece: float
    f1_per_class: list[float]
    confusion: list[list[int]]


class ClassificationCounts(NamedTuple):
    """Sums over samples: adding two of them, field by field, merges two batches."""

    confusion: Tensor  # [C, C] int64
    nll: Tensor  # [] float64
    confidence: Tensor  # [15] float64, sum of the top probability by bin
    hits: Tensor  # [15] int64


class ClassificationSamples(NamedTuple):
    """What each sample adds to the sums, so that resamples need not classify again."""

    classes: int
    cell: Tensor  # [N] int64, of the confusion matrix, row by row
    nll: Tensor  # [N] float64
    bin: Tensor  # [N] int64, of the top probability
    confidence: Tensor  # [N] float64, the top probability
    hit: Tensor  # [N] float64, 1 where it is right


def _classification_samples(logits: Tensor, target: Tensor) -> ClassificationSamples:
    classes = logits.shape[1]
    log_probs = logits.double().log_softmax(1)
    top, predicted = log_probs.max(1)
    confidence = top.exp()
    edges = torch.linspace(0, 1, ECE_BINS + 1, dtype=torch.float64, device=logits.device)
    return ClassificationSamples(
        classes=classes,
        cell=target.long() * classes + predicted,
        nll=-log_probs.gather(1, target[:, None])[:, 0],
        bin=torch.bucketize(confidence, edges[1:-1]),
        confidence=confidence,
        hit=(predicted == target).double(),
    )


def _classification_counts(samples: ClassificationSamples, rows: Tensor | None = None) -> ClassificationCounts:
    """Sums over the rows, which may repeat; over all samples by default."""
    classes, *fields = samples
    cell, nll, bins, confidence, hit = fields if rows is None else (field[rows] for field in fields)
    return ClassificationCounts(
        confusion=torch.bincount(cell, minlength=classes * classes).reshape(classes, classes),
        nll=nll.sum(),
        confidence=torch.bincount(bins, confidence, ECE_BINS),
        hits=torch.bincount(bins, hit, ECE_BINS).long(),
    )


def _classification_compute(counts: ClassificationCounts) -> ClassificationScores:
    matrix, nll, confidence, hits = (field.cpu() for field in counts)
    samples = matrix.sum()
    return {
        "accuracy": (matrix.diagonal().sum() / samples.double()).item(),
        "f1_weighted": f1_weighted(matrix).item(),
        "f1_macro": f1_macro(matrix).item(),
        "nll": (nll / samples).item(),
        # |accuracy − confidence| of a bin times its share of the samples: the bin's own count cancels
        "ece": ((hits - confidence).abs().sum() / samples).item(),
        "f1_per_class": f1_per_class(matrix).tolist(),
        "confusion": matrix.tolist(),
    }


def classification(logits: Values, target: Values) -> ClassificationScores:
    """Accuracy, F1, likelihood and calibration of class predictions.

    - `accuracy`; `f1_weighted` (by the labels' support); `f1_macro` (plain mean over the classes that are labelled or
      predicted at least once); `f1_per_class` (NaN for a class that is neither).
    - `confusion`: counts, rows true, columns predicted.
    - `nll`: mean negative log-likelihood, in nats.
    - `ece`: expected calibration error over 15 equal-width bins of the top probability (Guo et al., *On Calibration of
      Modern Neural Networks*, 2017, Eq. 3), a fraction.

    Args:
        logits: unnormalised scores `[N, C]`, C ≥ 2. For probabilities pass `probs.clamp_min(1e-12).log()`.
        target: class numbers `[N]`, from 0 to C − 1.

    Raises:
        ValueError: shapes differ, no samples, a value is NaN or infinite, or a label is no class number.

    >>> classification([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 1, 1])["confusion"]
    [[1, 0], [1, 1]]
    """
    scores, classes = check_classes(logits, target)
    return _classification_compute(_classification_counts(_classification_samples(scores.cpu(), classes.cpu())))

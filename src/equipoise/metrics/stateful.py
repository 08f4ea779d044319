"""The same metrics as `torchmetrics.Metric` classes: batch by batch, merged across ranks.

Apart from the functional forms because torchmetrics takes seconds to import.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from equipoise.metrics._classification import (
    ECE_BINS,
    ClassificationCounts,
    ClassificationScores,
    _classification_compute,
    _classification_counts,
    _classification_samples,
)
from equipoise.metrics._inputs import check_classes, check_matrices, check_vectors, warn_undefined_corr
from equipoise.metrics._regression import MultiRegressionScores, _multi_regression_compute, _warn_constant_outputs
from equipoise.metrics._sentiment import _check_scale, _sentiment_compute

if TYPE_CHECKING:
    from equipoise.metrics._inputs import Values

__all__ = ["Classification", "MultiRegression", "SentimentRegression"]


class SentimentRegression(Metric):
    """Stateful :func:`equipoise.metrics.sentiment_regression`.

    Keeps every prediction and label (a correlation needs them for exactness), so memory grows with the split.

    Args:
        scale: `"mosi"` or `"sims"`.
        binarise: None or `"mosi"`, as the functional form.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = SentimentRegression()
    >>> metric.update([2.4, -0.6], [3.0, -1.0])
    >>> metric.update([0.2], [0.0])
    >>> metric.compute()["acc7"]
    0.6666666666666666
    """

    is_differentiable = False
    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(
        self, scale: Literal["mosi", "sims"] = "mosi", binarise: Literal["mosi"] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _check_scale(scale, binarise)
        self.scale = scale
        self.binarise = binarise
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, preds: Values, target: Values) -> None:
        """Take in predictions and labels, `[B]` or `[B, 1]` each."""
        checked = check_vectors(preds, target)
        self.preds.append(checked[0])
        self.target.append(checked[1])

    def compute(self) -> dict[str, float]:
        """The metrics over everything seen."""
        scores = _sentiment_compute(dim_zero_cat(self.preds), dim_zero_cat(self.target), self.scale, self.binarise)
        if math.isnan(scores["corr"]):
            warn_undefined_corr()
        return scores


class MultiRegression(Metric):
    """Stateful :func:`equipoise.metrics.multi_regression`; keeps every prediction and label.

    Args:
        kwargs: of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, preds: Values, target: Values) -> None:
        """Take in predictions and labels, `[B, R]` each."""
        checked = check_matrices(preds, target)
        self.preds.append(checked[0])
        self.target.append(checked[1])

    def compute(self) -> MultiRegressionScores:
        """The metrics over everything seen."""
        scores = _multi_regression_compute(dim_zero_cat(self.preds), dim_zero_cat(self.target))
        _warn_constant_outputs(scores)
        return scores


class Classification(Metric):
    """Stateful :func:`equipoise.metrics.classification`; keeps sums only.

    Args:
        num_classes: C, 2 or more.
        kwargs: of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False
    confusion: Tensor
    nll: Tensor
    confidence: Tensor
    hits: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 2:
            raise ValueError(f"Parameter `num_classes` should be 2 or more. Found `num_classes = {num_classes}`.")
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("nll", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(ECE_BINS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("hits", torch.zeros(ECE_BINS, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Values, target: Values) -> None:
        """Take in logits `[B, C]` and class numbers `[B]`."""
        scores, classes = check_classes(logits, target)
        if scores.shape[1] != self.num_classes:
            raise ValueError(
                f"Parameter `logits` should have shape [B, {self.num_classes}]. Found {list(scores.shape)}."
            )
        counts = _classification_counts(_classification_samples(scores, classes))
        self.confusion += counts.confusion
        self.nll += counts.nll
        self.confidence += counts.confidence
        self.hits += counts.hits

    def compute(self) -> ClassificationScores:
        """The metrics over everything seen."""
        return _classification_compute(ClassificationCounts(self.confusion, self.nll, self.confidence, self.hits))

"""Confusion matrices and the F1 scores read from them."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    """`[C, C]` counts (int64): rows are true classes, columns predicted ones, as in scikit-learn."""
    return torch.bincount(true.long() * classes + predicted.long(), minlength=classes * classes).reshape(
        classes, classes
    )


def f1_per_class(matrix: Tensor) -> Tensor:
    """F1 of each class, `[C]` float64; NaN for a class that is neither labelled nor predicted."""
    hits = matrix.diagonal().double()
    return 2 * hits / (matrix.sum(0) + matrix.sum(1))


def f1_weighted(matrix: Tensor) -> Tensor:
    """Mean F1 weighted by how often each class is the label, `[]` float64."""
    support = matrix.sum(1).double()
    return (f1_per_class(matrix).nan_to_num(0.0) * support).sum() / support.sum()


def f1_macro(matrix: Tensor) -> Tensor:
    """Plain mean F1 over the classes that are labelled or predicted at least once, `[]` float64."""
    return f1_per_class(matrix).nanmean()

"""Checks of what comes in, shared by every metric."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Values: TypeAlias = Tensor | Sequence[float] | Sequence[Sequence[float]] | npt.NDArray[np.number[Any]]


def as_floats(name: str, values: Values) -> Tensor:
    """A detached float tensor of the same shape; every value finite, at least one row.

    float32 and float64 stay as they are (cut points are compared in the precision of the values); lists and integers
    become float64, half precisions float32.
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        try:
            # torch refuses arrays that run backwards, so copy; a list would become float32 and lose digits
            values = values.copy() if hasattr(values, "copy") else values
            tensor = torch.tensor(values, dtype=torch.float64 if isinstance(values, (list, tuple)) else None)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"Parameter `{name}` should hold numbers in rows of equal length. "
                f"Found {type(values).__name__}: {error}."
            ) from None
    if tensor.is_complex():
        raise ValueError(f"Parameter `{name}` should hold real numbers. Found {tensor.dtype}.")
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    elif not tensor.is_floating_point():
        tensor = tensor.double()
    if tensor.ndim == 0 or tensor.numel() == 0:
        raise ValueError(
            f"Parameter `{name}` should hold at least one sample. Found shape {list(tensor.shape)}. "
            "Check that the split is not empty."
        )
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise ValueError(
            f"Parameter `{name}` should be finite. Found {bad} of {tensor.numel()} values NaN or infinite. "
            "For predictions: did training diverge? For labels: leave those samples out."
        )
    return tensor


def check_vectors(preds: Values, target: Values) -> tuple[Tensor, Tensor]:
    """Predictions and labels of one output, `[N]` each; `[N, 1]` is flattened."""
    first, second = as_floats("preds", preds), as_floats("target", target)
    for name, tensor in (("preds", first), ("target", second)):
        if tensor.ndim > 2 or (tensor.ndim == 2 and tensor.shape[1] != 1):
            raise ValueError(
                f"Parameter `{name}` should have shape [N] or [N, 1]. Found {list(tensor.shape)}. "
                "For several outputs use `multi_regression`."
            )
    if len(first) != len(second):
        raise ValueError(
            f"Parameters `preds` and `target` should hold the same samples. "
            f"Found {len(first)} predictions and {len(second)} labels."
        )
    return first.reshape(-1), second.reshape(-1)


def check_matrices(preds: Values, target: Values) -> tuple[Tensor, Tensor]:
    """Predictions and labels of several outputs, `[N, R]` each."""
    first, second = as_floats("preds", preds), as_floats("target", target)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            "Parameters `preds` and `target` should have one shape [N, R]. "
            f"Found {list(first.shape)} and {list(second.shape)}."
        )
    return first, second


def check_classes(logits: Values, target: Values) -> tuple[Tensor, Tensor]:
    """Logits `[N, C]` and class numbers `[N]` (int64)."""
    scores = as_floats("logits", logits)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(
            f"Parameter `logits` should have shape [N, C] with C of 2 or more. Found {list(scores.shape)}. "
            "For a single logit z per sample, stack [0, z]."
        )
    labels = as_floats("target", target)
    if labels.shape != scores.shape[:1]:
        raise ValueError(
            f"Parameter `target` should have shape [N] with N = {len(scores)} as `logits`. Found {list(labels.shape)}."
        )
    classes = labels.long()
    if bool((classes != labels).any()) or int(classes.min()) < 0 or int(classes.max()) >= scores.shape[1]:
        raise ValueError(
            f"Parameter `target` should hold class numbers from 0 to {scores.shape[1] - 1}. "
            f"Found values from {labels.min().item():g} to {labels.max().item():g}."
        )
    return scores, classes


def warn_undefined_corr(outputs: Sequence[int] = ()) -> None:
    """One warning that says why `corr` is NaN."""
    where = f" of output {', '.join(map(str, outputs))}" if outputs else ""
    warnings.warn(
        f"Metric `corr` is NaN: the predictions or the labels{where} are all the same, so no correlation is defined.",
        UserWarning,
        stacklevel=3,
    )

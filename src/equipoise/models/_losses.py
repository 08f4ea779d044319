"""The task's loss on what a single modality says."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def mean_loss(logits: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """Absolute error or cross-entropy, averaged over the samples that are present; 0 without any.

    Args:
        logits: ``[B]`` or ``[B, outputs]``
        target: ``[B]`` or ``[B, R]`` values, or ``[B]`` class indices
        present: ``[B]`` bool
    """
    if target.is_floating_point():
        each = (logits - target).abs().reshape(len(target), -1).mean(dim=1)
    else:
        each = F.cross_entropy(logits.float(), target, reduction="none")
    return each.where(present, 0).sum() / present.sum().clamp_min(1)

"""Dropout of wide activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FINEST = 255 / 256  # beyond it a byte has no threshold above


class Dropout(nn.Module):
    """``nn.Dropout``, but on a processor it takes a quarter of the time.

    There it draws eight random bits an entry, and with each call one of the two thresholds around ``256 p``, such that
    every entry is dropped with probability ``p``.

    Args:
        p: share of entries that are zeroed while training; the others are divided by ``1 - p``
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Parameter `dropout` should be at least 0 and below 1. Found `dropout = {p}`.")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling() or self.p > _FINEST:
            return torch.native_dropout(x, self.p, train=True)[0]
        return x * _kept(x.shape, self.p, x.dtype).div_(1 - self.p)

    def extra_repr(self) -> str:
        """The share."""
        return f"p={self.p}"


def _kept(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    """One but for a share of ``p`` in the mean, zero there."""
    entries = shape.numel()
    bits = torch.empty((entries + 7) // 8, dtype=torch.int64, device="cpu").random_(-(2**63), None)
    threshold = int(256 * p + torch.rand((), dtype=torch.float64, device="cpu").item()) - 128
    # Whole numbers up to 256 are exact in every dtype. A comparison, and a bool to a float, would take twice the time.
    return bits.view(torch.int8)[:entries].view(shape).to(dtype).sub_(threshold - 1).clamp_(0, 1)

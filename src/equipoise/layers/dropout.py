"""Dropout of wide activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STEPS = 2**16


class Dropout(nn.Module):
    """``nn.Dropout``, but on a processor it takes half the time and keeps a byte of each entry, not a float.

    There it draws sixteen random bits an entry, so ``p`` counts to the nearest multiple of 2^-16, also in the mean.

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
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return torch.native_dropout(x, self.p, train=True)[0]
        dropped = min(round(self.p * _STEPS), _STEPS - 1)
        return (x * _kept(x.shape, dropped)).mul_(_STEPS / (_STEPS - dropped))

    def extra_repr(self) -> str:
        """The share."""
        return f"p={self.p}"


def _kept(shape: torch.Size, dropped: int) -> Tensor:
    """True but for ``dropped`` of ``_STEPS`` entries in the mean."""
    entries = shape.numel()
    bits = torch.empty((entries + 3) // 4, dtype=torch.int64, device="cpu").random_(-(2**63), None)
    return bits.view(torch.int16)[:entries].view(shape) >= dropped - _STEPS // 2

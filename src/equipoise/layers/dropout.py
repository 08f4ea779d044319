"""Dropout of wide activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """``nn.Dropout``, but for the backward pass it keeps a byte of each entry on a processor too, and not a float.

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
        return torch.native_dropout(x, self.p, train=True)[0] if self.training and self.p else x

    def extra_repr(self) -> str:
        """The share."""
        return f"p={self.p}"

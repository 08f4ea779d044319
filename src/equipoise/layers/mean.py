"""The encoder that ignores order."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from equipoise.layers.sequence import Sequence, masked_mean


class MeanEncoder(nn.Module):
    """The mean over real frames, then a multilayer perceptron.

    Args:
        dim: width of the input
        hidden: width of each layer
        layers: linear layers, each followed by ReLU and dropout
        dropout: after each layer, while training
    """

    def __init__(self, dim: int, hidden: int, *, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [dim] + [hidden] * layers
        self.mlp = nn.Sequential(
            *(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(widths))
        )
        self.dim = hidden

    def forward(self, x: Sequence) -> Sequence:
        """``[B, T, d]`` to one frame, ``[B, 1, hidden]``; a sample without real frames has none after it either."""
        pooled = self.mlp(masked_mean(x.values, x.mask)).unsqueeze(1)
        return Sequence(pooled, x.mask.any(dim=1, keepdim=True)).cleared()

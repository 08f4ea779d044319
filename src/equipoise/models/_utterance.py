"""How MISA reads an utterance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equipoise.layers import Sequence, masked_last, masked_mean, run_packed


class UtteranceEncoder(nn.Module):
    """A sequence to one vector: two bidirectional LSTMs, or a mean, then a linear layer, ReLU and a layer norm.

    Args:
        dim: width of the input, and of both LSTMs.
        hidden: width of the vector.
        recurrent: the last states of both LSTMs, each direction's, ``4 * dim`` wide; else the mean of real frames.
    """

    def __init__(self, dim: int, hidden: int, *, recurrent: bool) -> None:
        super().__init__()
        self.first = nn.LSTM(dim, dim, batch_first=True, bidirectional=True) if recurrent else None
        self.norm = nn.LayerNorm(2 * dim) if recurrent else None
        self.second = nn.LSTM(2 * dim, dim, batch_first=True, bidirectional=True) if recurrent else None
        self.project = nn.Sequential(nn.Linear(4 * dim if recurrent else dim, hidden), nn.ReLU(), nn.LayerNorm(hidden))

    def forward(self, x: Sequence) -> Tensor:
        """``[B, T, d]`` to ``[B, hidden]``; what it says of a sample without real frames means nothing."""
        if self.first is None or self.norm is None or self.second is None:
            utterance = masked_mean(x.values, x.mask)
        else:
            low = run_packed(self.first, x)
            high = run_packed(self.second, Sequence(self.norm(low.values), x.mask))
            utterance = torch.cat([_ends(low), _ends(high)], dim=1)
        projected: Tensor = self.project(utterance)
        return projected


def _ends(x: Sequence) -> Tensor:
    """The last state of each direction, ``[B, T, 2 d]`` to ``[B, 2 d]``: the backward one ends at the first frame."""
    forward, backward = x.values.chunk(2, dim=-1)
    return torch.cat([masked_last(forward, x.mask), masked_last(backward.flip(1), x.mask.flip(1))], dim=1)

"""The subnetworks that TFN and LMF share: an LSTM reads text, the others are averaged over time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equipoise.layers import Sequence, last_state


class LastState(nn.Module):
    """An LSTM over the real frames; its last state passes ``layers`` linear layers.

    Args:
        dim: width of the input.
        hidden: width of the LSTM.
        out: width of each linear layer.
        layers: how many; with ``relu`` each is followed by ReLU and dropout.
        relu: False leaves them linear, with dropout before them.
        dropout: while training.
    """

    def __init__(self, dim: int, hidden: int, out: int, *, layers: int, relu: bool, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        parts: list[nn.Module] = [] if relu else [nn.Dropout(dropout)]
        for index in range(layers):
            parts.append(nn.Linear(out if index else hidden, out))
            parts += [nn.ReLU(), nn.Dropout(dropout)] if relu else []
        self.mlp = nn.Sequential(*parts)
        self.dim = out

    def forward(self, x: Sequence) -> Sequence:
        """``[B, T, d]`` to one frame, ``[B, 1, out]``; a sample without real frames has none after it either."""
        last = self.mlp(last_state(self.lstm, x)).unsqueeze(1)
        return Sequence(last, x.mask.any(dim=1, keepdim=True)).cleared()


def with_zeros(encoded: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """``{m: z_m [B, d_m]}`` for every modality of the model, zeros for those that are absent."""
    some = next(iter(encoded.values()))
    return {m: encoded[m] if m in encoded else some.new_zeros(len(some), width) for m, width in widths.items()}


def with_one(z: Tensor) -> Tensor:
    """``[B, d]`` to ``[B, d + 1]``: a constant 1 behind the vector."""
    return torch.cat([z, torch.ones_like(z[:, :1])], dim=1)

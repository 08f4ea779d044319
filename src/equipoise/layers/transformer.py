"""The transformer encoder of audio and vision streams."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equipoise.layers.attention import CrossAttention
from equipoise.layers.dropout import Dropout
from equipoise.layers.feed_forward import FeedForward
from equipoise.layers.recurrent import run_packed
from equipoise.layers.sequence import Sequence


class TransformerEncoder(nn.Module):
    """Linear projection, sinusoidal positions, self-attention blocks and, if asked, a unidirectional LSTM on top.

    Blocks normalise before each part and add to a residual stream; a last layer norm closes the stack. Padded frames
    stay out of attention, are skipped by the LSTM, and come out as zeros.

    Args:
        dim: width of the input
        hidden: width of the stream, and of the LSTM
        layers: number of blocks; the feed-forward part is four times as wide as the stream
        heads: attention heads; divides ``hidden``
        dropout: on attention weights, inside the feed-forward part and on each residual branch, while training
        recurrent: ends with the LSTM (AGS-SMoE, Eq. 18)
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.0,
        recurrent: bool = False,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(dim, hidden)
        self.blocks = nn.ModuleList(_Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True) if recurrent else None
        self.dim = hidden

    def forward(self, x: Sequence) -> Sequence:
        """``[B, T, d]`` to ``[B, T, hidden]``."""
        values = self.project(x.cleared().values)
        values = values + positions(values.shape[1], values.shape[2], values.device).to(values.dtype)
        out = Sequence(values, x.mask)
        for block in self.blocks:
            out = block(out)
        out = Sequence(self.norm(out.values), x.mask)
        return out.cleared() if self.lstm is None else run_packed(self.lstm, out)


class _Block(nn.Module):
    """Self-attention, then feed-forward, each ``x + dropout(part(norm(x)))``."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 4 * dim, dropout)
        self.drop = Dropout(dropout)

    def forward(self, x: Sequence) -> Sequence:
        normed = Sequence(self.attention_norm(x.values), x.mask)
        values = x.values + self.drop(self.attention(normed, normed))
        values = values + self.drop(self.feed_forward(self.feed_forward_norm(values)))
        return Sequence(values, x.mask)


def positions(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal positions ``[T, d]`` (Vaswani et al. 2017, section 3.5): sines in even columns, cosines in odd."""
    rates = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    angles = torch.arange(length, device=device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]

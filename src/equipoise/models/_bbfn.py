"""The parts of BBFN: two streams that complement each other, layer by layer, and what keeps them apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equipoise.layers import CrossAttention, FeedForward, GRUEncoder, Sequence, masked_mean


class Projection(nn.Module):
    """A convolution over time; padded frames are zeros before and after."""

    def __init__(self, dim: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, hidden, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Sequence) -> Sequence:
        """``[B, T, d]`` to ``[B, T, hidden]``."""
        values: Tensor = self.conv(x.cleared().values.transpose(1, 2))
        return Sequence(values.transpose(1, 2), x.mask).cleared()


class Pair(nn.Module):
    """Two modalities through all layers, each complemented by the other."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float, *, gated: bool, separated: bool) -> None:
        super().__init__()
        wanted = range(layers if gated or separated else 0)
        self.separators = nn.ModuleList(Separator(dim, first=index == 0, separated=separated) for index in wanted)
        self.first = nn.ModuleList(Complement(dim, heads, dropout, gated=gated) for _ in range(layers))
        self.second = nn.ModuleList(Complement(dim, heads, dropout, gated=gated) for _ in range(layers))

    def forward(self, one: Sequence, other: Sequence) -> tuple[Sequence, Sequence, Tensor]:
        """Streams ``[B, T, d]`` and ``[B, S, d]`` to both of them, and what discriminators say ``[B, layers, 2]``."""
        control = one.values.new_zeros(len(one.mask), 0)
        found: list[Tensor] = []
        for index, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            if self.separators:
                control, logits = self.separators[index](one, other)
                found.append(logits)
            one, other = first(one, other, control), second(other, one, control)
        return one, other, torch.stack(found, dim=1) if found else control.unsqueeze(1)


class Complement(nn.Module):
    """One side of a layer: attention of a stream to the other one, two gates, and a feed-forward network."""

    def __init__(self, dim: int, heads: int, dropout: float, *, gated: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, heads, dropout)
        self.retain = nn.Linear(2 * dim, dim) if gated else None
        self.compound = nn.Linear(2 * dim, dim) if gated else None
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 4 * dim, dropout)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Sequence, source: Sequence, control: Tensor) -> Sequence:
        """``x`` ``[B, T, d]``, ``source`` ``[B, S, d]``, ``control`` ``[B, 2 d]`` to ``[B, T, d]``."""
        query = Sequence(self.norm(x.values), x.mask)
        new = self.drop(self.attention(query, Sequence(self.norm(source.values), source.mask)))
        values = x.values
        if self.retain is not None and self.compound is not None:
            new = self.compound(control).sigmoid().unsqueeze(1) * new
            values = self.retain(control).sigmoid().unsqueeze(1) * values
        values = values + new
        values = values + self.drop(self.feed_forward(self.feed_forward_norm(values)))
        return Sequence(values, x.mask).cleared()


class Separator(nn.Module):
    """One vector of each stream, and a discriminator that shall tell whose it is.

    The first layer's vectors are linear in the mean over time; those of later layers are the mean over time, and over
    both directions, of a GRU's states.
    """

    def __init__(self, dim: int, *, first: bool, separated: bool) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(dim, dim) if first else GRUEncoder(dim, dim) for _ in range(2))
        self.discriminator = (
            nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, 1)) if separated else None
        )

    def forward(self, one: Sequence, other: Sequence) -> tuple[Tensor, Tensor]:
        """Two streams to their vectors side by side ``[B, 2 d]``, and the discriminator's logits ``[B, 2]``."""
        vectors: list[Tensor] = []
        for encoder, x in zip(self.encoders, (one, other), strict=True):
            if isinstance(encoder, GRUEncoder):
                vector = torch.stack(masked_mean(encoder(x).values, x.mask).chunk(2, dim=1)).mean(dim=0)
            else:
                vector = encoder(masked_mean(x.values, x.mask))
            vectors.append(vector.masked_fill(~x.mask.any(dim=1, keepdim=True), 0))
        logits = vectors[0].new_zeros(len(vectors[0]), 0)
        if self.discriminator is not None:
            logits = torch.cat([self.discriminator(vector) for vector in vectors], dim=1)
        return torch.cat(vectors, dim=1), logits

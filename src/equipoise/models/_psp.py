"""Parts of PSP: what it makes of segments before any two are compared, and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.layers import Sequence, aligned, run_packed

TINY = 1e-8  # as in the released code: a segment that resembles nothing takes nothing


class SegmentEncoder(nn.Module):
    """Two linear layers and a bidirectional LSTM over the real segments; before them, attention over a segment's map.

    Args:
        dim: width of a segment.
        hidden: width of each direction.
        channels: where a segment is a map of ``dim / channels`` positions, its channels; None for a vector.
        guided: the attention has a guide.
    """

    def __init__(self, dim: int, hidden: int, *, channels: int | None, guided: bool) -> None:
        super().__init__()
        self.attention = None if channels is None else GuidedAttention(dim // channels, channels, hidden, guided=guided)
        width = dim if channels is None else channels
        self.project = nn.Sequential(
            nn.Linear(width, 2 * hidden, bias=False), nn.Linear(2 * hidden, hidden, bias=False)
        )
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Sequence, guide: Sequence | None = None) -> Sequence:
        """``[B, T, dim]`` to ``[B, T, 2 * hidden]``; what is guided is also given the guide's projected segments."""
        return run_packed(self.lstm, self.projected(x, guide))

    def projected(self, x: Sequence, guide: Sequence | None = None) -> Sequence:
        """``[B, T, dim]`` to ``[B, T, hidden]``, what the LSTM reads."""
        if self.attention is not None:
            heard = None if guide is None else aligned(guide, x.mask)[0]
            x = Sequence(self.attention(x.values, heard), x.mask).cleared()
        return Sequence(self.project(x.values), x.mask)


class GuidedAttention(nn.Module):
    r"""Attention over the positions of a map (Tian et al. 2018, as PSP's released code has it).

    $$
    \alpha = \operatorname{softmax}_p \big( w \tanh(U \, \mathrm{relu}(A m_p + a) + (G \, \mathrm{relu}(B g + b))_p)
    \big), \qquad v = \sum_p \alpha_p m_p
    $$

    The guide's term is one number a position, added to all entries of that position's vector.
    """

    def __init__(self, positions: int, channels: int, guide: int, *, guided: bool) -> None:
        super().__init__()
        hidden = 4 * guide  # 512 in the released code
        self.positions = positions
        self.own = nn.Linear(channels, hidden)
        self.own_map = drawn(hidden, positions)
        self.guide = nn.Linear(guide, hidden) if guided else None
        self.guide_map = drawn(hidden, positions) if guided else None
        self.score = drawn(positions, 1)

    def forward(self, maps: Tensor, guide: Tensor | None) -> Tensor:
        """``[B, T, P * C]``, channels last, and ``[B, T, g]`` to ``[B, T, C]``; no guide says as much as zeros."""
        at = maps.view(*maps.shape[:2], self.positions, -1)
        content = self.own_map(self.own(at).relu())
        if self.guide is not None and self.guide_map is not None:
            told = maps.new_zeros(*maps.shape[:2], self.guide.in_features) if guide is None else guide
            content = content + self.guide_map(self.guide(told).relu()).unsqueeze(-1)
        weights = self.score(content.tanh()).softmax(dim=2)
        return cast(Tensor, (weights * at).sum(dim=2))


def drawn(width: int, out: int) -> nn.Linear:
    """A linear layer without bias, its weights drawn as in the released code (Glorot)."""
    layer = nn.Linear(width, out, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def checked_maps(maps: Mapping[str, int], dims: Mapping[str, int]) -> dict[str, int]:
    """The maps' channels.

    Raises:
        ValueError: no such modality, or channels that do not divide its width.
    """
    for name, channels in maps.items():
        if name not in dims or channels < 1 or dims[name] % channels:
            raise ValueError(
                "Parameter `maps` should name modalities and a number of channels that divides their width in "
                f"{dict(dims)}. Found {name!r}: {channels}."
            )
    return dict(maps)


def unevenness(heard: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """``[B]``, how far the shares of cosine similarity are from equal, the mean over pairs; 0 without a pair."""
    some, _ = next(iter(heard.values()))
    total, pairs = some.new_zeros(len(some)), some.new_zeros(len(some))
    for (a, spoken_a), (b, spoken_b) in combinations(heard.values(), 2):
        both = spoken_a & spoken_b
        cosine = F.cosine_similarity(a, b, dim=-1).relu().masked_fill(~both, 0)
        shares = cosine / (cosine.sum(dim=1, keepdim=True) + TINY)
        length = both.sum(dim=1, keepdim=True).clamp(min=1).to(shares.dtype)
        total = total + ((shares - 1 / length).square() * both).sum(dim=1) / length.squeeze(1)
        pairs = pairs + both.any(dim=1)
    return total / pairs.clamp(min=1)

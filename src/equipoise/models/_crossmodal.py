"""The crossmodal transformer, which MulT and TETFN are made of."""

from __future__ import annotations

from torch import nn

from equipoise.layers import CrossAttention, Dropout, FeedForward, Sequence, masked_last


class Transformer(nn.Module):
    """Blocks of attention to a source (``crossmodal``) or to the stream itself, and a closing norm."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float, *, crossmodal: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, dropout, crossmodal=crossmodal) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Sequence, source: Sequence | None, *, last: bool = False) -> Sequence:
        """The last block asks for the last real frame alone if ``last``: nothing reads what it makes of the others."""
        for index, block in enumerate(self.blocks):
            x = block(x, source, last=last and index == len(self.blocks) - 1)
        return Sequence(self.norm(x.values), x.mask).cleared()


class Block(nn.Module):
    """Attention, then feed-forward, each ``x + dropout(part(norm(x)))``."""

    def __init__(self, dim: int, heads: int, dropout: float, *, crossmodal: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.source_norm = nn.LayerNorm(dim) if crossmodal else None
        self.attention = CrossAttention(dim, heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 4 * dim, dropout)
        self.drop = Dropout(dropout)

    def forward(self, x: Sequence, source: Sequence | None, *, last: bool) -> Sequence:
        query = Sequence(self.norm(x.values), x.mask)
        if source is None or self.source_norm is None:
            keys = query
        else:
            keys = Sequence(self.source_norm(source.values), source.mask)
        if last:
            x, query = _last_frame(x), _last_frame(query)
        values = x.values + self.drop(self.attention(query, keys))
        values = values + self.drop(self.feed_forward(self.feed_forward_norm(values)))
        return Sequence(values, x.mask)


def _last_frame(x: Sequence) -> Sequence:
    """``[B, T, d]`` to ``[B, 1, d]``; a sample without real frames has none after it either."""
    return Sequence(masked_last(x.values, x.mask).unsqueeze(1), x.mask.any(dim=1, keepdim=True))

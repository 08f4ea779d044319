"""One layer of a Cross-MoE branch."""

from __future__ import annotations

from torch import Tensor, nn

from equipoise.layers.attention import CrossAttention
from equipoise.layers.dropout import Dropout
from equipoise.layers.feed_forward import FeedForward
from equipoise.layers.sequence import Sequence
from equipoise.layers.sparse_moe import SparseMoE


class CrossMoELayer(nn.Module):
    """Cross-modal attention followed by a sparse mixture of experts (AGS-SMoE, Eq. 19).

    The paper gives no residuals or norms. Here both parts are ``x + dropout(part(norm(x)))``, as in MulT, whose
    cross-modal attention the paper builds on: nine layers without residuals do not train.

    Args:
        dim: width of both streams
        experts: number of experts; 0 puts one feed-forward network of an expert's shape in place of the mixture,
            which makes a traditional transformer layer (the paper's "w/o MoE")
    """

    def __init__(self, dim: int, *, heads: int, experts: int, top_k: int, dropout: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim)
        self.source_norm = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, heads, dropout)
        self.norm = nn.LayerNorm(dim)
        self.mix: SparseMoE | FeedForward = (
            SparseMoE(dim, experts, top_k, hidden=4 * dim, dropout=dropout)
            if experts
            else FeedForward(dim, 4 * dim, dropout)
        )
        self.drop = Dropout(dropout)

    def forward(self, query: Sequence, source: Sequence) -> Sequence:
        """``query`` ``[B, T, d]`` updated from ``source`` ``[B, S, d]``; padded frames come out as zeros."""
        keys = Sequence(self.source_norm(source.values), source.mask)
        queries = Sequence(self.query_norm(query.values), query.mask)
        values = query.values + self.drop(self.attention(queries, keys))
        normed: Tensor = self.norm(values)
        mixed = self.mix(normed, query.mask) if isinstance(self.mix, SparseMoE) else self.mix(normed)
        return Sequence(values + self.drop(mixed), query.mask).cleared()

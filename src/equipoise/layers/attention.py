"""Multi-head attention from one stream to another."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.layers.sequence import Sequence


class CrossAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) whose queries come from one stream, keys and values from another.

    Padded keys take no part. A sample whose source has no real frame gets zeros, with finite gradients. Attention of a
    stream to itself is ``attention(x, x)``. Projections to query, key and value carry no bias.

    Args:
        dim: width d of both streams
        heads: number of heads; divides ``dim``
        dropout: on the attention weights, while training
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"Parameter `heads` should divide the width {dim}. Found `heads = {heads}`.")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, query: Sequence, source: Sequence) -> Tensor:
        """``query`` ``[B, T, d]`` over ``source`` ``[B, S, d]`` to ``[B, T, d]``."""
        queries = self._split(self.query(query.values))
        source = source.cleared()  # a masked key still multiplies its value by zero: NaN there would come through
        keys, values = self._split(self.key(source.values)), self._split(self.value(source.values))
        some = source.mask.any(dim=1, keepdim=True)
        # A softmax over no key at all is 0/0: such rows may look everywhere, and their output is dropped below.
        allowed = (source.mask | ~some)[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed, dropout_p=dropout)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out.masked_fill(~some.unsqueeze(-1), 0)

    def _split(self, x: Tensor) -> Tensor:
        """``[B, T, d]`` to ``[B, heads, T, d / heads]``."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

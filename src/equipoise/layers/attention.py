"""Multi-head attention from one stream to another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.layers.dropout import Dropout
from equipoise.layers.sequence import Sequence, all_real

_WIDTH = 16  # heads are filled up to a multiple: the fused kernel then takes .6 of its time for 5 or 10
_KEYS = 8  # and so is the number of keys, in narrow heads: what a vector register does not hold goes one by one
_SHORT = 25_000  # scores a head below which writing them out takes a processor less time than the fused kernel


class CrossAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) whose queries come from one stream, keys and values from another.

    Padded keys take no part. A sample whose source has no real frame gets zeros, with finite gradients. Attention of a
    stream to itself is ``attention(x, x)``. Projections to query, key and value carry no bias.

    Dropout drops a frame of the source from a head for all queries at once. Each weight is dropped as often as with
    dropout on the weights themselves, and its mean is the same; but no mask of dropout is as large as the weights, and
    those of long streams are never written out: on 500 frames over 375 that would take four times as long.

    Args:
        dim: width d of both streams
        heads: number of heads; divides ``dim``
        dropout: of frames of the source, in each head, while training
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"Parameter `heads` should divide the width {dim}. Found `heads = {heads}`.")
        self.heads = heads
        self.drop = Dropout(dropout)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, query: Sequence, source: Sequence) -> Tensor:
        """``query`` ``[B, T, d]`` over ``source`` ``[B, S, d]`` to ``[B, T, d]``."""
        source = source.cleared()  # a masked key still multiplies its value by zero: NaN there would come through
        queries, keys, values = self._split(
            self.query(query.values), self.key(source.values), self.value(source.values)
        )
        real = all_real(source.mask)
        some = source.mask.any(dim=1, keepdim=True)
        # A softmax over no key at all is 0/0: such rows may look everywhere, and their output is dropped below.
        allowed = None if real else (source.mask | ~some)[:, None, None, :]
        if self.drop.p and self.training:
            values = values * self.drop(values.new_ones(*values.shape[:3], 1))
        width = values.shape[-1]
        if width % _WIDTH and keys.is_cpu and not torch.compiler.is_compiling():
            queries, keys, values = _filled_up(queries, keys, values, source.mask)
            allowed = None
        elif width % _WIDTH:
            queries, keys, values = (F.pad(x, (0, -width % _WIDTH)) for x in (queries, keys, values))
        mixed = attend(queries, keys, values, allowed, width**-0.5)
        out: Tensor = self.out(mixed[..., :width].transpose(1, 2).flatten(2))
        return out if real else out.masked_fill(~some.unsqueeze(-1), 0)

    def _split(self, *streams: Tensor) -> list[Tensor]:
        """``[B, T, d]`` each to ``[B, heads, T, d / heads]``."""
        return [x.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in streams]


def _filled_up(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Narrow heads filled up in width, and their keys in number. The last of the new columns stands for a mask.

    There a query holds 1 and a key 0, or a number so low that the softmax leaves nothing of it where the key is hidden.

    Args:
        queries: ``[B, heads, T, w]``
        keys: ``[B, heads, S, w]``, zero where hidden
        values: ``[B, heads, S, w]``
        mask: ``[B, S]`` bool, True = a key that may be looked at
    """
    wider, more = -keys.shape[3] % _WIDTH, -keys.shape[2] % _KEYS
    queries = F.pad(queries, (0, wider), value=1.0)
    keys, values = F.pad(keys, (0, wider, 0, more)), F.pad(values, (0, wider, 0, more))
    hidden = ~F.pad(mask, (0, more))
    keys.detach()[..., -1] = hidden.to(keys.dtype).mul_(torch.finfo(keys.dtype).min / 2).unsqueeze(1)
    return queries, keys, values


def attend(queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None, scale: float) -> Tensor:
    """Softmax attention, by the fused kernel or, on a processor and for short streams, with its weights in memory.

    Args:
        queries: ``[B, heads, T, w]``
        keys: ``[B, heads, S, w]``
        values: ``[B, heads, S, w]``
        allowed: ``[B, 1, 1, S]`` bool, True = a key that may be looked at, at least one a sample; None for all
        scale: of the scores, before the softmax

    Returns:
        ``[B, heads, T, w]``
    """
    if not queries.is_cpu or queries.shape[2] * keys.shape[2] > _SHORT:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed, scale=scale)
    rows, heads = queries.shape[:2]
    q, k = queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)
    if allowed is None:
        scores = torch.bmm(q * scale, k)
    else:
        hidden = torch.where(allowed, 0.0, -torch.inf).to(q.dtype).expand(rows, heads, 1, -1).flatten(0, 1)
        scores = torch.baddbmm(hidden, q, k, alpha=scale)
    return torch.bmm(scores.softmax(dim=-1), values.flatten(0, 1)).view(queries.shape)

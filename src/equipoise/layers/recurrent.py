"""Recurrent layers that never see padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from equipoise.layers.sequence import Sequence


def run_packed(rnn: nn.GRU | nn.LSTM, x: Sequence) -> Sequence:
    """Runs a batch-first recurrent layer over the real frames alone, wherever in the sequence they stand.

    Args:
        rnn: a GRU or LSTM with ``batch_first=True``

    Returns:
        Values ``[B, T, h]`` with zeros in padded frames, and the mask of ``x``
    """
    packed, order = _pack(rnn, x)
    # Most processors have no bfloat16 LSTM, and torch fails there where all lengths are equal: no autocast on them.
    with torch.autocast("cpu", enabled=False):
        out, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.mask.shape[1])
    if order is not None:
        out = out.gather(1, order.argsort(dim=1).unsqueeze(-1).expand_as(out))
    return Sequence(out, x.mask).cleared()


def last_state(rnn: nn.LSTM, x: Sequence) -> Tensor:
    """The last real frame of :func:`run_packed`, without writing out the others.

    Args:
        rnn: an LSTM of one direction with ``batch_first=True``

    Returns:
        ``[B, h]``; zeros where a sample has no real frame
    """
    packed, _ = _pack(rnn, x)
    with torch.autocast("cpu", enabled=False):
        last: Tensor = rnn(packed)[1][0][-1]
    return torch.where(x.mask.any(dim=1, keepdim=True), last, 0)


def _pack(rnn: nn.GRU | nn.LSTM, x: Sequence) -> tuple[PackedSequence, Tensor | None]:
    """The real frames alone, and the order ``[B, T]`` in which they were taken where it is not their own."""
    counts = x.mask.sum(dim=1)
    compact, order = x.values, None
    if bool((x.mask[:, 1:] & ~x.mask[:, :-1]).any()):  # packing needs the real frames contiguous, at the start
        order = (~x.mask).to(torch.uint8).argsort(dim=1, stable=True)
        compact = compact.gather(1, order.unsqueeze(-1).expand_as(compact))
    lengths = counts.cpu()
    if not bool(lengths.all()):
        # A packed sequence cannot be empty: a sample without frames runs over one zero frame, cleared by the callers.
        compact = torch.where(counts[:, None, None] > 0, compact, 0)
    if compact.device.type == "cpu":
        compact = compact.to(next(rnn.parameters()).dtype)
    return pack_padded_sequence(compact, lengths.clamp(min=1), batch_first=True, enforce_sorted=False), order


class GRUEncoder(nn.Module):
    """A bidirectional GRU over the real frames.

    Args:
        dim: width of the input
        hidden: width per direction
        layers: stacked layers
        dropout: between layers, while training
    """

    def __init__(self, dim: int, hidden: int, *, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.rnn = nn.GRU(dim, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        self.dim = 2 * hidden

    def forward(self, x: Sequence) -> Sequence:
        """``[B, T, d]`` to ``[B, T, 2 * hidden]``."""
        return run_packed(self.rnn, x)

"""Recurrent layers that never see padding."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from equipoise.layers.sequence import Sequence


def run_packed(rnn: nn.GRU | nn.LSTM, x: Sequence) -> Sequence:
    """Runs a batch-first recurrent layer over the real frames alone, wherever in the sequence they stand.

    Args:
        rnn: a GRU or LSTM with ``batch_first=True``

    Returns:
        Values ``[B, T, h]`` with zeros in padded frames, and the mask of ``x``
    """
    x = x.cleared()
    compact, order = x.values, None
    if bool((x.mask[:, 1:] & ~x.mask[:, :-1]).any()):  # packing needs the real frames contiguous, at the start
        order = (~x.mask).to(torch.uint8).argsort(dim=1, stable=True)
        compact = compact.gather(1, order.unsqueeze(-1).expand_as(compact))
    # A packed sequence cannot be empty: a sample without frames runs over one zero frame, cleared again below.
    lengths = x.mask.sum(dim=1).clamp(min=1).cpu()
    if compact.device.type == "cpu":
        compact = compact.to(next(rnn.parameters()).dtype)
    # Most processors have no bfloat16 LSTM, and torch fails there where all lengths are equal: no autocast on them.
    with torch.autocast("cpu", enabled=False):
        packed = pack_padded_sequence(compact, lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.mask.shape[1])
    if order is not None:
        out = out.gather(1, order.argsort(dim=1).unsqueeze(-1).expand_as(out))
    return Sequence(out, x.mask).cleared()


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

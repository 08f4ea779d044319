"""Padded sequences and pooling over their real frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sequence(NamedTuple):
    """A padded batch of sequences.

    - ``values``: ``[B, T, d]``, what stands in padded frames means nothing.
    - ``mask``: ``[B, T]`` bool, True = real frame. A sample without the modality has an all-False row.
    """

    values: Tensor
    mask: Tensor

    def cleared(self) -> Sequence:
        """The same sequence with zeros in its padded frames, whatever stood there (NaN included)."""
        if all_real(self.mask):
            return self
        return Sequence(torch.where(self.mask.unsqueeze(-1), self.values, 0), self.mask)


def all_real(mask: Tensor) -> bool:
    """Whether ``mask`` hides nothing, asked where the answer is at hand: on a processor, and not while compiling."""
    return mask.is_cpu and not torch.compiler.is_compiling() and bool(mask.all())


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real frames of each sample.

    Args:
        values: ``[B, T, d]``
        mask: ``[B, T]`` bool, True = real frame

    Returns:
        ``[B, d]``; zeros where a sample has no real frame

    >>> import torch
    >>> values = torch.tensor([[[1.0], [3.0], [9.0]], [[5.0], [5.0], [5.0]]])
    >>> mask = torch.tensor([[True, True, False], [False, False, False]])
    >>> masked_mean(values, mask)
    tensor([[2.],
            [0.]])
    """
    total = torch.where(mask.unsqueeze(-1), values, 0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def masked_last(values: Tensor, mask: Tensor) -> Tensor:
    """The last real frame of each sample.

    Args:
        values: ``[B, T, d]``
        mask: ``[B, T]`` bool, True = real frame

    Returns:
        ``[B, d]``; zeros where a sample has no real frame

    >>> import torch
    >>> values = torch.tensor([[[1.0], [3.0], [9.0]], [[5.0], [5.0], [5.0]]])
    >>> mask = torch.tensor([[True, True, False], [False, False, False]])
    >>> masked_last(values, mask)
    tensor([[3.],
            [0.]])
    """
    steps = torch.arange(mask.shape[1], device=mask.device)
    last = (steps * mask).argmax(dim=1)
    rows = torch.arange(len(values), device=values.device)
    return values[rows, last].masked_fill(~mask.any(dim=1, keepdim=True), 0)

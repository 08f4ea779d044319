"""Nested tuples of tensors, a row a sample: what encoders make of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equipoise.layers import Sequence as Frames


def leaves(value: Any) -> Iterator[Tensor]:
    """Every tensor of a nested tuple."""
    if isinstance(value, tuple):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def _each(change: Callable[..., Any], *values: Any) -> Any:
    """The change made to every tensor of one nested tuple, or of several alike."""
    first = values[0]
    if not isinstance(first, tuple):
        return change(*values)
    parts = [_each(change, *together) for together in zip(*values, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def tensors(value: Any) -> Any:
    """Arrays turned into tensors."""
    return _each(lambda leaf: leaf if isinstance(leaf, Tensor) else torch.from_numpy(np.asarray(leaf)), value)


def zeros(value: Any) -> Any:
    """Zeros (False) of the same shapes."""
    return _each(torch.zeros_like, value)


def picked(value: Any, rows: Tensor) -> Any:
    """Some rows of every tensor."""
    return _each(lambda leaf: leaf[rows.to(leaf.device)], value)


def joined(values: Sequence[Any]) -> Any:
    """Batches one after the other, with zeros (False) behind what is shorter."""
    return _each(_padded, *values)


def _padded(*batches: Tensor) -> Tensor:
    longest = torch.tensor([batch.shape[1:] for batch in batches]).amax(dim=0).tolist()
    whole = batches[0].new_zeros(sum(map(len, batches)), *longest)
    start = 0
    for batch in batches:
        whole[tuple(slice(n) for n in (None, *batch.shape[1:]))][start : start + len(batch)] = batch
        start += len(batch)
    return whole


def trimmed(value: Any) -> Any:
    """A sequence without the frames that are padding in all rows."""
    if not isinstance(value, Frames):
        return value
    real = value.mask.any(dim=0).nonzero()
    last = max(1, int(real.max()) + 1 if len(real) else 1)
    return Frames(value.values[:, :last], value.mask[:, :last])


def width(value: Any) -> int:
    """How many numbers one row holds."""
    return sum(leaf[0].numel() for leaf in leaves(value))

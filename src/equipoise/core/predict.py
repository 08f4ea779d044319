"""``Step.predict`` for a model that exposes its encoders and its fusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class SubsetPredict:
    """Predictions from any subset of modalities at the cost of the fusion alone.

    The encoders have run once on the batch (``present``) and once on a muted input (``muted``); a subset takes each
    modality from the one or the other. Many subsets are fused in one call, stacked along the batch.

    Args:
        fuse: maps ``{m: representation}`` to logits ``[B, ...]``.
        present: ``{m: representation}``; a representation is a tensor ``[B, ...]`` or a tuple of such tensors.
        muted: the same for zero inputs, with ``B`` rows, or one row that stands for all.
        module: put in evaluation mode while predicting, so that dropout does not make two subsets differ.

    Example:
        >>> present = {"text": torch.tensor([[1.0], [2.0]]), "audio": torch.tensor([[10.0], [20.0]])}
        >>> muted = {"text": torch.tensor([[0.0]]), "audio": torch.tensor([[0.5]])}
        >>> predict = SubsetPredict(lambda x: x["text"] + x["audio"], present, muted)
        >>> predict(frozenset({"text"})).flatten()
        tensor([1.5000, 2.5000])
    """

    def __init__(
        self,
        fuse: Callable[[dict[str, Any]], Tensor],
        present: Mapping[str, Any],
        muted: Mapping[str, Any],
        *,
        module: nn.Module | None = None,
    ) -> None:
        if set(present) != set(muted):
            raise ValueError(
                "Parameters `present` and `muted` should hold the same modalities. "
                f"Found {sorted(present)} and {sorted(muted)}."
            )
        self._fuse = fuse
        self._present = dict(present)
        self._rows = _rows(next(iter(present.values())))
        self._muted = {name: _expand(value, self._rows) for name, value in muted.items()}
        self._module = module

    def __call__(self, kept: frozenset[str]) -> Tensor:
        """Logits ``[B, ...]`` from the kept modalities."""
        return self.batched([kept])[0]

    def batched(self, subsets: Sequence[frozenset[str]]) -> list[Tensor]:
        """Logits ``[B, ...]`` for each subset, from one call of ``fuse``.

        Raises:
            ValueError: a subset names a modality that was not encoded.
        """
        unknown = sorted(set[str]().union(*subsets) - set(self._present))
        if unknown:
            raise ValueError(f"Unknown modality {unknown}. The encoded ones are {sorted(self._present)}.")
        stacked = {
            name: _cat([self._present[name] if name in kept else self._muted[name] for kept in subsets])
            for name in self._present
        }
        with nullcontext() if self._module is None else _evaluating(self._module):
            logits = self._fuse(stacked)
        return list(torch.split(logits, self._rows))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _rows(representation: Any) -> int:
    while isinstance(representation, tuple):
        representation = representation[0]
    return len(representation)


def _expand(representation: Any, rows: int) -> Any:
    if isinstance(representation, tuple):
        return _like(representation, [_expand(part, rows) for part in representation])
    return representation.expand(rows, *representation.shape[1:]) if len(representation) == 1 else representation


def _cat(representations: Sequence[Any]) -> Any:
    first = representations[0]
    if isinstance(first, tuple):
        return _like(first, [_cat(parts) for parts in zip(*representations, strict=True)])
    return first if len(representations) == 1 else torch.cat(list(representations))


def _like(template: tuple[Any, ...], parts: list[Any]) -> tuple[Any, ...]:
    return type(template)(*parts) if hasattr(template, "_fields") else tuple(parts)

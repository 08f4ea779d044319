"""What a balancer may know of one micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """One micro-batch, whatever the loop knows of it. Only ``loss`` is required.

    Attributes:
        loss: ``[]``, the loss that the loop would backpropagate.
        logits: ``[B, C]``, or ``[B]`` and ``[B, R]`` for regression: the very tensor that ``loss`` was computed from.
        target: ``[B]`` class indices (integers), or ``[B]`` and ``[B, R]`` values (floating point).
        unimodal: ``{m: like logits}``, what each modality alone says.
        features: ``{m: [B, d_m]}``, one representation a modality, in the graph of ``loss``.
        predict: maps the names of the kept modalities to logits; the others are absent (see `SubsetPredict`).
        criterion: maps ``(logits, target)`` to the loss ``[]``.
        teacher: ``{m: [B, d_m]}``, what a frozen teacher of each modality makes of the same samples.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0])
        >>> step = Step(torch.nn.functional.cross_entropy(logits, target), logits=logits, target=target)
        >>> step.unimodal is None  # a balancer that needs it says so
        True
    """

    loss: Tensor
    logits: Tensor | None = None
    target: Tensor | None = None
    unimodal: Mapping[str, Tensor] | None = None
    features: Mapping[str, Tensor] | None = None
    predict: Callable[[frozenset[str]], Tensor] | None = None
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None
    teacher: Mapping[str, Tensor] | None = None

"""How far an encoder moved in training, beside the same encoder trained alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.diagnostics.estimates import plain


@dataclass(frozen=True)
class Movement:
    r"""How far one modality's encoder moved from where it started.

    $$
    \Delta = \frac{\lVert \theta_{end} - \theta_{start} \rVert}{\lVert \theta_{start} \rVert}
    $$

    Attributes:
        joint: in the model of all modalities. NaN where it started from zeros.
        alone: trained alone, over the same parameters; None where that is not known.
        share: joint over alone: 1 moves as far as alone, 0.02 hardly learns. None without ``alone``, NaN where the
            encoder alone did not move.
    """

    joint: float
    alone: float | None = None
    share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        found: dict[str, Any] = plain(self)
        return found


def movements(
    start: nn.Module, end: nn.Module, alone: Mapping[str, tuple[nn.Module, nn.Module]] | None = None
) -> dict[str, Movement]:
    """How far each modality's encoder moved.

    Where a model starts is a matter of its seed; build it again as the run did. Buffers, such as batch norm's, do not
    count. Between the same encoder in two models the parameters that both have, by name and shape, are compared: what
    a model has only beside other modalities is left out of both figures.

    Args:
        start: exposes ``modalities()``; as it was built.
        end: the same model, trained.
        alone: ``{m: (start, end)}`` of models of m alone.

    Raises:
        ValueError: ``end`` is another model than ``start``, or an encoder alone shares no parameter with the joint one.
    """
    model: Any = start
    groups = model.modalities()
    began, ended = dict(start.named_parameters()), dict(end.named_parameters())
    _check_alike(began, ended, "end")
    names = {id(parameter): name for name, parameter in began.items()}
    found = {}
    for modality in groups:
        own = [names[id(parameter)] for parameter in groups.parameters(modality) if parameter.requires_grad]
        if alone is None or modality not in alone:
            found[modality] = Movement(_moved(began, ended, own))
            continue
        first, last = (dict(each.named_parameters()) for each in alone[modality])
        _check_alike(first, last, f"alone[{modality!r}]")
        shared = [name for name in own if name in first and first[name].shape == began[name].shape]
        if not shared:
            raise ValueError(
                f"Parameter `alone` should hold the same encoder of {modality} as the joint model. "
                "Found one that shares no parameter with it, by name and shape."
            )
        joint, by_itself = _moved(began, ended, shared), _moved(first, last, shared)
        found[modality] = Movement(joint, by_itself, joint / by_itself if by_itself else math.nan)
    return found


def _moved(start: Mapping[str, Tensor], end: Mapping[str, Tensor], names: list[str]) -> float:
    way = _norm([end[name].detach().double().cpu() - start[name].detach().double().cpu() for name in names])
    length = _norm([start[name].detach().double().cpu() for name in names])
    return way / length if length else math.nan


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(torch.sum(x * x)) for x in tensors))


def _check_alike(start: Mapping[str, Tensor], end: Mapping[str, Tensor], name: str) -> None:
    if {key: x.shape for key, x in start.items()} != {key: x.shape for key, x in end.items()}:
        raise ValueError(f"Parameter `{name}` should be the model of `start`, trained. Found other parameters.")

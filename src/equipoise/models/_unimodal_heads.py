"""Heads that predict from one modality each, and what they lose on labels of their own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.models._unimodal_labels import UnimodalLabels
from equipoise.models.output import Output

Widths = int | Mapping[str, int] | None


def unimodal_losses(output: Output, batch: Batch, labels: UnimodalLabels, *, training: bool) -> dict[str, Tensor]:
    """``{"unimodal/m": []}`` for the batch's modalities, means over it; while ``training`` then moves the labels.

    Labels are made from ``output.extra``: ``joint``, and ``m_hidden`` of each modality.
    """
    assert output.unimodal is not None
    nothing = torch.zeros(len(batch), dtype=torch.bool, device=batch.target.device)
    present = {m: batch.masks[m].any(dim=1) if m in batch.masks else nothing for m in labels.names}
    found = {}
    if not batch.target.is_floating_point():
        for name in batch.masks.keys() & present.keys():
            each = F.cross_entropy(output.unimodal[name].float(), batch.target, reduction="none")
            found[f"unimodal/{name}"] = torch.where(present[name], each, 0.0).mean()
        return {f"unimodal/{m}": found[f"unimodal/{m}"] for m in labels.names if f"unimodal/{m}" in found}
    target = batch.target.reshape(len(batch), -1)
    known = labels.read(batch.index, target)
    for name in labels.names:
        if name in batch.masks:
            label, said = known[name], output.unimodal[name].reshape(target.shape)
            weight = (label - target).abs().tanh() * present[name].unsqueeze(-1)
            found[f"unimodal/{name}"] = (weight * (said.to(label.dtype) - label).abs()).mean()
    if training:
        hidden = {name: output.extra[f"{name}_hidden"].detach() for name in labels.names}
        labels.update(batch.index, target, output.extra["joint"].detach(), hidden, present)
    return found


class Head(nn.Module):
    """Three layers, ``[B, d]`` to what the first says, ``[B, hidden]``, and the last, ``[B, outputs]``."""

    def __init__(self, dim: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, hidden), nn.ReLU())
        self.rest = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.first(x)
        return found, self.rest(found)


def widths_by_modality(
    parameter: str, given: Widths, dims: Mapping[str, int], defaults: Mapping[str, int], other: int
) -> dict[str, int]:
    """One width for each modality: those given, else the default of its name, else ``other``."""
    chosen = dict.fromkeys(dims, given) if isinstance(given, int) else {**defaults, **(given or {})}
    if given is not None and not isinstance(given, int) and not given.keys() <= dims.keys():
        raise ValueError(f"Parameter `{parameter}` should name modalities of {list(dims)}. Found {list(given)}.")
    widths = {name: chosen.get(name, other) for name in dims}
    if min(widths.values()) < 1:
        raise ValueError(f"Parameter `{parameter}` should be positive. Found {widths}.")
    return widths

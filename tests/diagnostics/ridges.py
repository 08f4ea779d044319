"""A model of ours that is fitted in closed form: mean features of each modality, and a line on each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.data import Dataset, Split
from equipoise.models import Output


class Ridge(nn.Module):
    """Least squares on the training split, with a little penalty. ``weights[m]`` are its lines."""

    def __init__(self, data: Dataset, names: tuple[str, ...]) -> None:
        super().__init__()
        x, y = means(data.split("train")), torch.from_numpy(data.split("train").targets).double()
        self.centre = {name: x[name].mean(dim=0) for name in names}
        design = torch.cat([x[name] - self.centre[name] for name in names], dim=1)
        told = design.T @ (y - y.mean())
        weights = torch.linalg.solve(design.T @ design + torch.eye(design.shape[1]).double(), told)
        self.lines = nn.ModuleDict()
        for name, part in zip(names, weights.split([x[name].shape[1] for name in names]), strict=True):
            line = nn.Linear(len(part), 1, bias=False).double()
            line.weight.data = part[None]
            self.lines[name] = line
        self.silent: set[str] = set()
        self.bias = nn.Parameter(y.mean())

    def starve(self, name: str) -> None:
        """Make its encoder say nothing, as one that never learned."""
        self.silent.add(name)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        found = {}
        for name in self.lines:
            if name in batch.inputs:
                mask = batch.masks[name].double()
                mean = pooled(batch.inputs[name], mask)
                there = batch.inputs[name].abs().sum(dim=(1, 2)) > 0  # what is muted says nothing
                spoken = there & (name not in self.silent)
                found[name] = torch.where(spoken[:, None], mean - self.centre[name], 0.0)
        return found

    def fuse(self, encoded: dict[str, Tensor]) -> Output:
        said = torch.stack([self.lines[name](x).squeeze(1) for name, x in encoded.items()])
        return Output(self.bias + said.sum(dim=0), None, encoded)


def pooled(x: Tensor, mask: Tensor) -> Tensor:
    return (x.double() * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def means(split: Split) -> dict[str, Tensor]:
    batch: Any = split.batch(range(len(split)))
    return {name: pooled(x, batch.masks[name].double()) for name, x in batch.inputs.items()}

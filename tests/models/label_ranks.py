"""Samples for the tests of Self-MM's labels, and what each of two ranks makes of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from equipoise.models._unimodal_labels import UnimodalLabels

WIDTHS = {"text": 3, "audio": 2, "vision": 4}
TARGETS = torch.tensor([2.5, -1.0, 0.0, 0.5, -2.0, 1.0, -0.5], dtype=torch.float64).unsqueeze(1)
ALL = {name: torch.ones(len(TARGETS), dtype=torch.bool) for name in WIDTHS}


def made(**given: Any) -> UnimodalLabels:
    return UnimodalLabels(WIDTHS, **{"joint": 3, "outputs": 1, "bound": None, "from_view": 2, **given}).double()


def drawn(seed: int, size: int, shift: Tensor | float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Fused and unimodal features, ``shift [size, 1]`` from zero."""
    generator = torch.Generator().manual_seed(seed)
    widths = {"joint": 3, **WIDTHS}
    found = {name: torch.randn(size, width, generator=generator).double() + shift for name, width in widths.items()}
    return found.pop("joint"), found


def shared(rank: int, world: int) -> UnimodalLabels:
    """Three views of all samples, of which a rank brings each world-th."""
    labels = made()
    for view in range(3):
        joint, features = drawn(view, 7, TARGETS)
        mine = torch.arange(rank, 7, world)
        there = {**ALL, "audio": torch.arange(7) > view}
        taken = {name: x[mine] for name, x in features.items()}
        labels.update(mine, TARGETS[mine], joint[mine], taken, {name: x[mine] for name, x in there.items()})
    return labels


def main(rank: int, folder: str) -> None:
    """Keep labels on this of two ranks and write down how they ended."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(shared(rank, 2).state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()

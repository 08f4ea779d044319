"""What MMIM remembers on each of two ranks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from equipoise.core import Batch
from equipoise.models import MMIM

DIMS = {"text": 3, "audio": 2}


def remembered(parts: Iterable[int]) -> dict[str, Tensor]:
    """Three steps with a batch for each part; in the second step part 1 has no audio."""
    torch.manual_seed(0)
    model = MMIM(dims=DIMS, hidden=8, text_hidden=4, fusion_hidden=6, dropout=0.0, memory=20).double()
    for step in range(3):
        for part in parts:
            generator = torch.Generator().manual_seed(2 * step + part)
            inputs = {m: torch.randn(4, 2, dim, generator=generator, dtype=torch.float64) for m, dim in DIMS.items()}
            masks = {name: torch.ones(4, 2, dtype=torch.bool) for name in DIMS}
            batch = Batch(inputs, masks, torch.tensor([1.0, -1.0, 2.0, -2.0]).double(), torch.arange(4))
            if (step, part) == (1, 1):
                batch = batch.only(["text"])
            model.losses(model(batch), batch)
    return model.entropies.state_dict()


def main(rank: int, folder: str) -> None:
    """Train on this of two ranks and write down what it remembers."""
    torch.set_num_threads(1)
    patience = timedelta(seconds=120)  # a rank that calls less often than the other would wait for half an hour
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=patience)
    torch.save(remembered([rank]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()

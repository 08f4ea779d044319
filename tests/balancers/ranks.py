"""What each rank of a distributed run does; apart from the tests, so that a spawned process need not import them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from tests.balancers.loop import Run
from tests.balancers.settings import SETTINGS
from tests.balancers.toy import Data, backward, data
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from equipoise import Step

COUNT = 3
STEPS = 3


class Whole(nn.Module):
    """A model behind one ``forward``, as DistributedDataParallel wants it."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.model = run.model

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        features = self.model.encode(inputs)
        return self.model.fuse(features), self.model.unimodal(features), features


def step_of(model: nn.Module, run: Run, batch: Data) -> Step:
    logits, unimodal, features = model(batch.inputs)

    def predict(kept: frozenset[str]) -> Tensor:
        inputs = {name: x if name in kept else torch.zeros_like(x) for name, x in batch.inputs.items()}
        return run.model.fuse(run.model.encode(inputs))

    loss = F.cross_entropy(logits, batch.target)
    for output in unimodal.values():
        loss = loss + F.cross_entropy(output, batch.target)
    return Step(
        loss,
        logits=logits,
        target=batch.target,
        unimodal=unimodal,
        features=features,
        predict=predict,
        criterion=F.cross_entropy,
        teacher={name: 0.5 * x[:, :1].repeat(1, 4) for name, x in batch.inputs.items()},
    )


def train(name: str, rank: int, world: int) -> dict[str, Tensor]:
    """Parameters and balancer state after a few steps and an epoch's end, on this rank's part of each batch."""
    run = Run(SETTINGS[name], COUNT)
    assert run.balancer is not None
    whole = Whole(run)
    model = DistributedDataParallel(whole) if world > 1 else whole

    def part(seed: int) -> Data:
        batch = data(COUNT, seed=seed)
        rows = len(batch.target) // world
        return batch.rows(rank * rows, (rank + 1) * rows)

    for seed in range(STEPS):
        run.optimizer.zero_grad()
        backward(run.balancer(step_of(model, run, part(seed))))
        run.balancer.modulate()
        run.optimizer.step()
    with torch.no_grad():
        run.balancer.end_epoch(train=[step_of(whole, run, part(9))], val=[step_of(whole, run, part(10))])
    return run.parameters() | {f"balancer.{key}": value for key, value in run.balancer.state_dict().items()}


def main(rank: int, folder: str) -> None:
    """Run every setting on this of two ranks and write down how each ended."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save({name: train(name, rank, 2) for name in SETTINGS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()

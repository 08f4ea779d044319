"""A training step of AGS-SMoE with a text encoder of BERT-base's size, with and without balancing.

    python benchmarks/ags_smoe.py [--layers 3] [--rounds 3] [--threads 1] [--steps 50] [--variant plain AGS ...]

The shape is that of CMU-MOSI, aligned by words: 32 utterances, 50 BERT tokens, 50 frames of audio (5 wide) and of
vision (20 wide), as the released code reads them; all frames are real, none is padding. Weights and input are random.
The model has the released code's defaults: streams 30 wide, 5 heads, 2 of 3 experts, 3 layers in each encoder and in
each branch; ``--layers 9`` is the paper's depth. A step is the training loop's: forward, L1 loss, balancer, backward,
``modulate()``, clip at 1, Adam.

- ``plain``: no balancer.
- ``AGS``: both stages, encoders and branches.
- ``AGM``: predictions from all subsets of modalities, through the model's ``encode`` and ``fuse``.
- ``AGS loop``: our model and AGS's arithmetic at the cost of the released code: for each parameter tensor a norm that
  is copied to the host, a clone of the gradient, and a multiplication. A re-enactment, not the released code.
- ``AGS loop + anomaly``: the same under torch's anomaly detection, which the released code never turns off.
- ``AGS bf16``: AGS with the forward in bfloat16 (``train.precision: bf16``).

All train one model in turn, one step each a round. ``wall s`` and ``CPU s`` (of this process, all threads together) are
the best of all rounds, which other programs on the machine disturb least; ``ratio`` is CPU s over the plain step's.
``balancer`` is the median CPU time in ``balancer(step)`` and ``modulate()``. ``peak MB`` is the resident memory of a
fresh process that takes two such steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise import AGM, AGS, Balancer, Chain, Modalities
from equipoise.core import Batch
from equipoise.functional import ags_factors
from equipoise.layers import Sequence, SparseMoE
from equipoise.models import AGSSMoE
from equipoise.training.optimizers import make_optimizer
from equipoise.training.steps import make_step

BATCH, ALPHA = 32, 0.01
DIMS = {"text": 768, "audio": 5, "vision": 20}
RECORDED = """\
Recorded elsewhere, not in this run: the released code with BERT-base, batch 32, MOSI-shaped input, two cores, best wall
seconds a step: plain 6.05, AGS 5.6 to 6.3, as released (with anomaly detection) 7.95; peak 5560 to 7995 MB."""


class Bert(nn.Module):
    """BERT-base with random weights: 109 million parameters."""

    dim = 768

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig(), add_pooling_layer=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.bert(tokens, attention_mask=mask).last_hidden_state
        return states.masked_fill(~mask.unsqueeze(-1), 0)


class LoopAGS:
    """AGS on several stages, tensor by tensor, as the released code does it."""

    def __init__(self, *stages: Modalities) -> None:
        self.stages = stages

    def modulate(self) -> None:
        for stage in self.stages:
            norms = torch.tensor([self._norm(stage.gradients(name)) for name in stage])
            factors: list[float] = ags_factors(norms, ALPHA).tolist()
            for name, factor in zip(stage, factors, strict=True):
                for gradient in stage.gradients(name):
                    gradient.mul_(factor)

    @staticmethod
    def _norm(gradients: list[Tensor]) -> float:
        kept, total = [], 0.0
        for gradient in gradients:
            total += gradient.norm(2).item() ** 2
            kept.append(gradient.clone().detach())
        return (total / len(kept)) ** 0.5 if kept else 0.0


@dataclass
class Variant:
    """What to add to the plain step, and what it took."""

    balancer: Balancer | LoopAGS | None = None
    anomaly: bool = False
    half: bool = False
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    balancing: list[float] = field(default_factory=list)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.half)


def variants(model: AGSSMoE) -> dict[str, Variant]:
    stages = model.modalities("encoders"), model.modalities("fusion")

    def two_stages() -> Chain:
        return Chain(*(AGS(stage, alpha=ALPHA) for stage in stages))

    return {
        "plain": Variant(),
        "AGS": Variant(two_stages()),
        "AGM": Variant(AGM(stages[0])),
        "AGS loop": Variant(LoopAGS(*stages)),
        "AGS loop + anomaly": Variant(LoopAGS(*stages), anomaly=True),
        "AGS bf16": Variant(two_stages(), half=True),
    }


NAMES = ["plain", "AGS", "AGM", "AGS loop", "AGS loop + anomaly", "AGS bf16"]


def build(layers: int, steps: int) -> tuple[AGSSMoE, Batch, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = AGSSMoE(dims=DIMS, layers=layers, encoder_layers=3, text_encoder=Bert())
    inputs = {name: torch.randn(BATCH, steps, dim) for name, dim in DIMS.items()}
    inputs["text"] = torch.randint(1000, 30000, (BATCH, steps))
    masks = {name: torch.ones(BATCH, steps, dtype=torch.bool) for name in DIMS}
    batch = Batch(inputs, masks, torch.randn(BATCH), torch.arange(BATCH))
    text: Any = model.text_encoder
    optimizer = make_optimizer(model, "adam", lr=1e-3, weight_decay=1e-4, own_lr=[(text, 5e-5)])
    return model, batch, optimizer


def take_step(variant: Variant, model: AGSSMoE, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    balancer = variant.balancer
    needs = balancer.needs if isinstance(balancer, Balancer) else frozenset[str]()
    with torch.autograd.set_detect_anomaly(variant.anomaly):
        step = make_step(model, batch, F.l1_loss, needs=needs, autocast=variant.autocast)
        before = time.process_time()
        loss = balancer(step) if isinstance(balancer, Balancer) else step.loss
        balancing = time.process_time() - before
        torch.autograd.backward(loss)
    before = time.process_time()
    if balancer is not None:
        balancer.modulate()
    variant.balancing.append(balancing + time.process_time() - before)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    variant.cpu.append(time.process_time() - cpu)
    variant.wall.append(time.perf_counter() - wall)


def peak_memory(name: str, layers: int, steps: int, threads: int) -> float:
    """Megabytes, in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_memory, name, layers, steps, threads).result()


def _peak_memory(name: str, layers: int, steps: int, threads: int) -> float:
    torch.set_num_threads(threads)
    model, batch, optimizer = build(layers, steps)
    variant = variants(model)[name]
    for _ in range(2):
        take_step(variant, model, batch, optimizer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def parts(model: AGSSMoE, batch: Batch, rounds: int) -> dict[str, float]:
    """CPU seconds, forward and backward, of the model's parts, each run alone on what it gets in a step."""
    encoded = {
        name: Sequence(values.detach().requires_grad_(), mask) for name, (values, mask) in model.encode(batch).items()
    }
    seen: list[tuple[SparseMoE, Tensor, Tensor]] = []

    def note(moe: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        assert isinstance(moe, SparseMoE)
        seen.append((moe, inputs[0].detach().requires_grad_(), inputs[1]))

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, SparseMoE)]
    model.fuse(encoded)
    for hook in hooks:
        hook.remove()
    text: Any = model.text_encoder
    small = batch.only(["audio", "vision"])
    runs: dict[str, Callable[[], list[Tensor]]] = {
        "text encoder": lambda: [text(batch.inputs["text"], batch.masks["text"])],
        "audio and vision encoders": lambda: [x.values for x in model.encode(small).values()],
        "fusion": lambda: [model.fuse(encoded).logits],
        "sparse experts, within fusion": lambda: [moe(x, mask) for moe, x, mask in seen],
    }
    found = {}
    for name, run in runs.items():
        times = []
        for _ in range(rounds + 1):
            start = time.process_time()
            torch.autograd.backward(torch.stack([out.sum() for out in run()]).sum())
            times.append(time.process_time() - start)
        found[name] = min(times)
    model.zero_grad()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--variant", nargs="+", choices=NAMES, default=NAMES)
    given = parser.parse_args()
    names = [name for name in NAMES if name == "plain" or name in given.variant]
    memory = {name: peak_memory(name, given.layers, given.steps, given.threads) for name in names}

    torch.set_num_threads(given.threads)
    model, batch, optimizer = build(given.layers, given.steps)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"AGS-SMoE, L = {given.layers}, {millions:.1f} million parameters; batch {BATCH}, {given.steps} steps; "
        f"torch {torch.__version__}, {given.threads} thread(s), {given.rounds} rounds"
    )
    timed = {name: variant for name, variant in variants(model).items() if name in names}
    for _ in range(given.rounds + 1):  # the first round fills caches and the optimizer's state
        for variant in timed.values():
            take_step(variant, model, batch, optimizer)

    print(f"{'step':<20}{'wall s':>8}{'CPU s':>8}{'ratio':>8}{'balancer':>10}{'peak MB':>9}")
    plain = min(timed["plain"].cpu)
    for name, variant in timed.items():
        best = min(variant.cpu)
        print(
            f"{name:<20}{min(variant.wall):>8.2f}{best:>8.2f}{best / plain:>8.3f}"
            f"{median(variant.balancing[1:]):>10.3f}{memory[name]:>9.0f}"
        )
    print(RECORDED)
    print("\nparts of the plain step, run alone, CPU s")
    for name, seconds in parts(model, batch, given.rounds).items():
        print(f"{name:<32}{seconds:>8.3f}{seconds / plain:>8.1%}")


if __name__ == "__main__":
    main()

"""What a balancer adds to a training step, measured against the same step without one.

    python benchmarks/balancers.py [--rounds 15] [--threads 1] [--model small minilm]

All variants train one model in turn, one step each a round, and are timed in CPU seconds of this process, so that
whatever else the machine does hits them little and alike. ``ratio`` is the median over rounds of (step with balancer)
/ (step without, in the same round). ``inside`` is the time within ``balancer(step)`` and ``modulate()`` alone, as a
share of the plain step: all that AGS and OGM-GE add (but for ``apply_to="update"``, whose part lies in the optimizer's
step), and free of the noise of two whole steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise import AGM, AGS, OGMGE, Balancer, Modalities, Step
from equipoise.core import Batch, SubsetPredict
from equipoise.functional import gradient_norms
from equipoise.models import LateFusion

BATCH, TOKENS, FRAMES = 32, 32, 50
TARGETS = {"AGS": 1.02, "AGS update": None, "OGM": 1.02, "OGM-GE": 1.02, "AGM cut": 1.6, "AGM whole": None}


class BertEncoder(nn.Module):
    """A BERT of MiniLM-L6's size with random weights: 22.7 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dim = 384

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.bert(tokens, attention_mask=mask.long()).last_hidden_state
        return out * mask[..., None]


def small() -> tuple[LateFusion, Batch]:
    """GRUs on three modalities of features."""
    dims = {"text": 300, "audio": 74, "vision": 35}
    return LateFusion(dims=dims, outputs=3), batch({name: torch.randn(BATCH, FRAMES, d) for name, d in dims.items()})


def minilm() -> tuple[LateFusion, Batch]:
    """Fine-tuning a small text encoder, beside small audio and vision ones."""
    dims = {"text": 384, "audio": 74, "vision": 35}
    inputs = {name: torch.randn(BATCH, FRAMES, d) for name, d in dims.items()}
    inputs["text"] = torch.randint(1000, 30000, (BATCH, TOKENS))
    return LateFusion(dims=dims, outputs=3, text_encoder=BertEncoder()), batch(inputs)


def batch(inputs: dict[str, Tensor]) -> Batch:
    masks = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in inputs.items()}
    return Batch(inputs, masks, torch.randint(3, (BATCH,)), torch.arange(BATCH))


def subset_predict(model: LateFusion, batch: Batch, encoded: dict[str, Tensor]) -> SubsetPredict:
    muted = model.encode(batch.muted())
    return SubsetPredict(lambda x: model.fuse(x).logits, encoded, muted, module=model)


def whole_predict(model: LateFusion, batch: Batch, encoded: dict[str, Tensor]) -> Callable[[frozenset[str]], Tensor]:
    def predict(kept: frozenset[str]) -> Tensor:
        inputs = {name: x if name in kept else torch.zeros_like(x) for name, x in batch.inputs.items()}
        logits: Tensor = model(Batch(inputs, batch.masks, batch.target, batch.index)).logits
        return logits

    return predict


def measure(model: LateFusion, batch: Batch, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each variant's step, and of the balancer's calls in it, by round."""
    modalities = model.modalities()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    variants: dict[str, Balancer | None] = {
        "plain": None,
        "AGS": AGS(modalities),
        "AGS update": AGS(modalities, apply_to="update"),
        "OGM": OGMGE(modalities, noise=False),
        "OGM-GE": OGMGE(modalities),
        "AGM cut": AGM(modalities),
        "AGM whole": AGM(modalities),
    }
    predicts: dict[str, Callable[..., Callable[[frozenset[str]], Tensor]]] = {
        "AGM cut": subset_predict,
        "AGM whole": whole_predict,
    }
    inside: dict[str, list[float]] = {name: [] for name in variants}
    for balancer in variants.values():
        if balancer is not None:
            balancer.attach(optimizer)

    def step(name: str) -> None:
        balancer = variants[name]
        optimizer.zero_grad()
        encoded = model.encode(batch)
        output = model.fuse(encoded)
        loss = F.cross_entropy(output.logits, batch.target)
        start = time.process_time()
        if balancer is not None:
            predict = predicts[name](model, batch, encoded) if name in predicts else None
            loss = balancer(
                Step(loss, logits=output.logits, target=batch.target, unimodal=output.unimodal, predict=predict)
            )
        middle = time.process_time()
        torch.autograd.backward(loss)
        then = time.process_time()
        if balancer is not None:
            balancer.modulate()
        inside[name].append(middle - start + time.process_time() - then)
        optimizer.step()

    seconds = alternate({name: partial(step, name) for name in variants}, rounds)
    return seconds, {name: times[-len(seconds[name]) :] for name, times in inside.items()}


def measure_norms(modalities: Modalities, rounds: int) -> dict[str, list[float]]:
    """Norms by fused kernels against a copy to the host for each parameter."""
    for name in modalities:
        for parameter in modalities.parameters(name):
            parameter.grad = torch.randn_like(parameter)

    def loop() -> list[float]:
        found = []
        for name in modalities:
            squares = [gradient.norm(2).item() ** 2 for gradient in modalities.gradients(name)]
            found.append((sum(squares) / len(squares)) ** 0.5)
        return found

    assert torch.allclose(gradient_norms(modalities), torch.tensor(loop()), rtol=1e-4)
    return alternate({"loop": loop, "fused": lambda: gradient_norms(modalities)}, rounds)


def alternate(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, run in variants.items():
            if name == "AGM whole" and number >= 5:  # it takes as long as all others together
                continue
            start = time.process_time()
            run()
            if number >= 2:  # the first rounds fill caches and the optimizer's state
                seconds[name].append(time.process_time() - start)
    return seconds


def ratio(times: list[float], base: list[float]) -> float:
    return median(a / b for a, b in zip(times, base, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", nargs="+", choices=["small", "minilm"], default=["small", "minilm"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {arguments.rounds} rounds, batch {BATCH}")
    for name in arguments.model:
        torch.manual_seed(0)
        model, data = {"small": small, "minilm": minilm}[name]()
        count = sum(p.numel() for p in model.parameters()) / 1e6
        print(f"\n{name}: LateFusion, {count:.2f} million parameters")
        print(f"{'step':<12}{'ms':>10}{'ratio':>8}{'inside':>9}{'target':>8}")
        seconds, inside = measure(model, data, arguments.rounds)
        for variant, times in seconds.items():
            target = TARGETS.get(variant)
            print(
                f"{variant:<12}{1e3 * median(times):>10.1f}{ratio(times, seconds['plain']):>8.3f}"
                f"{ratio(inside[variant], seconds['plain']):>9.2%}"
                f"{'' if target is None else f'≤ {target}':>8}"
            )
        norms = measure_norms(model.modalities(), arguments.rounds)
        print(
            f"norms: {1e3 * median(norms['fused']):.2f} ms fused, {1e3 * median(norms['loop']):.2f} ms by parameter "
            f"({ratio(norms['loop'], norms['fused']):.1f} ×)"
        )


if __name__ == "__main__":
    main()

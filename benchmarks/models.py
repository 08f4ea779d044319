"""Training steps of models against those of the common framework, MMSA, in one run.

    pip install --no-deps MMSA easydict nvidia-ml-py3 pandas tqdm python-dateutil tzdata
    python -m benchmarks.models [--only mult-unaligned tfn] [--lengths full mosi] [--rounds 3] [--threads 2] [--busy]
        [--give-back]

Each implementation lives in a process of its own, so that its peak memory can be told; the processes take two steps in
turn, so that whatever else the machine does hits them alike, and the second counts: as in training it follows one of
its own, while the first finds the caches as the other process has left them. Both train by Adam on the same input at
equal width, depth and batch: MOSI's shape, of 768 + 5 + 20 features (for MISA token ids, and a BERT-base with random
weights on both sides). ``full``: every sequence has real frames up to the end. ``mosi``: lengths are drawn as those of
MOSI's transcripts are distributed (``log n`` of mean 2.33 and deviation .62, cut to 50), 7.5 audio and 10 vision frames
a word; MMSA pads to 50, 375 and 500, as its files do, and ours to the longest of the batch.

``glomo`` and ``ags-smoe`` are not in MMSA, and the copies of their released code that were read lack files. Against
them stands what a step of that code does besides all else: BERT-base, fine-tuned on texts that it pads to 60 tokens for
GLoMo and to 50 for AGS-SMoE, the latter under the anomaly detection that it turns on for good, and one linear layer.

``time`` is MMSA's seconds a step over ours, the median over rounds: CPU seconds where there is one thread, which other
work on the machine hits little, else by the clock. ``--busy`` is for several threads on a machine that has other
work: CPU seconds of the main thread, which sleeps while it waits for the others. That leaves the waiting out, so it
flatters what splits unevenly. ``memory`` is our peak over theirs, both with Python and torch in it, ``net`` without.
``--give-back`` is without `equipoise.training.memory`: what a step frees goes back to the system.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor

from equipoise.core import Batch
from equipoise.layers import TextEncoder
from equipoise.training.memory import freed_memory_kept
from equipoise.training.optimizers import make_optimizer

DIMS = {"text": 768, "audio": 5, "vision": 20}
BERT_WORDS = 30522
PadTo = dict[str, int]
UNALIGNED: PadTo = {"text": 50, "audio": 375, "vision": 500}
ALIGNED: PadTo = {"text": 50, "audio": 50, "vision": 50}
Inputs = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Pair:
    """Ours and theirs, the same in size; theirs is BERT alone where there is no ``module``."""

    steps: PadTo
    batch: int
    module: str | None
    cls: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    bert: bool = False
    anomaly: bool = False


_MULT_OURS = {"hidden": 50, "heads": 10, "layers": 4, "kernel": 5}
_MULT_THEIRS = {
    "use_bert": False, "attn_mask": True, "dst_feature_dim_nheads": [50, 10], "nlevels": 4,
    "conv1d_kernel_size_l": 5, "conv1d_kernel_size_a": 5, "conv1d_kernel_size_v": 5, "attn_dropout": 0.2,
    "attn_dropout_a": 0.2, "attn_dropout_v": 0.2, "relu_dropout": 0.2, "embed_dropout": 0.2, "res_dropout": 0.2,
    "output_dropout": 0.1, "text_dropout": 0.2,
}  # fmt: skip
PAIRS = {
    "mult-unaligned": Pair(UNALIGNED, 16, "MULT", "MulT", _MULT_OURS, _MULT_THEIRS),
    "mult-aligned": Pair(ALIGNED, 16, "MULT", "MulT", _MULT_OURS, _MULT_THEIRS),
    "tfn": Pair(
        UNALIGNED, 32, "TFN", "TFN", {"text_hidden": 128, "hidden": 32, "fusion_hidden": 128},
        {"hidden_dims": [128, 32, 32], "text_out": 128, "post_fusion_dim": 128, "dropouts": [0.2] * 4},
    ),
    "lmf": Pair(
        UNALIGNED, 64, "LMF", "LMF", {"text_hidden": 128, "text_out": 64, "hidden": 32, "rank": 4},
        {"hidden_dims": [128, 32, 32], "rank": 4, "dropouts": [0.2] * 4},
    ),
    "misa": Pair(
        ALIGNED, 16, "MISA", "MISA", {"hidden": 128},
        {"use_bert": True, "use_finetune": True, "transformers": "bert", "rnncell": "lstm", "use_cmd_sim": True,
         "hidden_size": 128, "dropout": 0.2, "diff_weight": 0.1, "sim_weight": 0.3, "recon_weight": 1.0},
        bert=True,
    ),
    "glomo": Pair({"text": 60, "audio": 60, "vision": 60}, 32, None, "GLoMo", {}, {}, bert=True),
    "ags-smoe": Pair(ALIGNED, 32, None, "AGSSMoE", {}, {}, bert=True, anomaly=True),
}  # fmt: skip


def inputs(pair: Pair, lengths: str) -> Inputs:
    """``{m: [B, T, d]}`` padded as MMSA pads, ``{m: [B]}`` real lengths, targets ``[B]``."""
    torch.manual_seed(0)
    words = torch.full((pair.batch,), 50.0)
    if lengths == "mosi":
        words = (2.33 + 0.62 * torch.randn(pair.batch)).exp().round().clamp(1, 50)
    counts = {m: (words * steps / 50).round().long().clamp_min(1) for m, steps in pair.steps.items()}
    values = {m: torch.randn(pair.batch, steps, DIMS[m]) for m, steps in pair.steps.items()}
    for m, x in values.items():
        x[torch.arange(x.shape[1]) >= counts[m].unsqueeze(1)] = 0
    return values, counts, torch.randn(pair.batch)


def ours(pair: Pair, given: Inputs) -> Callable[[], object]:
    from equipoise import models

    values, counts, target = given
    encoder = None
    values = {m: x[:, : int(counts[m].max())] for m, x in values.items()}
    masks = {m: torch.arange(x.shape[1]) < counts[m].unsqueeze(1) for m, x in values.items()}
    if pair.bert:
        encoder = TextEncoder(_random_bert())
        values["text"] = torch.randint(1000, 30000, masks["text"].shape)
    model: Any = getattr(models, pair.cls)(dims=DIMS, text_encoder=encoder, **pair.ours).train()
    optimizer = make_optimizer(model, "adam")
    batch = Batch(values, masks, target, torch.arange(len(target)))

    def step() -> None:
        optimizer.zero_grad()
        output = model(batch)
        loss = (output.logits - target).abs().mean()
        if hasattr(model, "losses"):
            loss = sum(model.losses(output, batch).values(), start=loss)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def theirs(pair: Pair, given: Inputs) -> Callable[[], object]:
    if pair.module is None:
        torch.autograd.set_detect_anomaly(pair.anomaly)
        return bert_alone(given)
    module = mmsa(f"models.singleTask.{pair.module}")
    trainer = mmsa(f"trains.singleTask.{pair.module}") if pair.cls == "MISA" else None
    EasyDict: Any = importlib.import_module("easydict").EasyDict
    values, counts, target = given
    args = EasyDict(
        feature_dims=list(DIMS.values()), num_classes=1, train_mode="regression", dataset_name="mosi", device="cpu",
        seq_lens=list(pair.steps.values()), **pair.theirs,
    )  # fmt: skip
    text, audio, vision = values.values()
    if pair.cls == "MISA":
        args.pretrained = _random_bert()
        ids = torch.randint(1000, 30000, text.shape[:2])
        mask = (torch.arange(text.shape[1]) < counts["text"].unsqueeze(1)).long()
        text = torch.stack([ids * mask, mask, torch.zeros_like(mask)], dim=1).float()
    if pair.cls in ("TFN", "LMF"):  # its loader averages audio and vision over time before training
        audio, vision = audio.mean(dim=1, keepdim=True), vision.mean(dim=1, keepdim=True)
    model = getattr(module, pair.module)(args).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    losses = None if trainer is None else trainer.MISA(args)

    def step() -> None:
        optimizer.zero_grad()
        loss = (model(text, audio, vision)["M"].squeeze(-1) - target).abs().mean()
        if losses is not None:
            losses.model = types.SimpleNamespace(Model=model)
            loss = loss + args.diff_weight * losses.get_diff_loss() + args.sim_weight * losses.get_cmd_loss()
            loss = loss + args.recon_weight * losses.get_recon_loss()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def bert_alone(given: Inputs) -> Callable[[], object]:
    """The least that fine-tuning BERT-base takes on texts that are padded: no audio, no vision, no fusion."""
    from transformers import BertConfig, BertModel

    values, counts, target = given
    tokens = torch.randint(1000, 30000, values["text"].shape[:2])
    mask = (torch.arange(tokens.shape[1]) < counts["text"].unsqueeze(1)).long()
    bert, head = BertModel(BertConfig(), add_pooling_layer=False), torch.nn.Linear(768, 1)
    optimizer = torch.optim.Adam([*bert.parameters(), *head.parameters()])

    def step() -> None:
        optimizer.zero_grad()
        first = bert(tokens * mask, attention_mask=mask).last_hidden_state[:, 0]
        torch.autograd.backward((head(first).squeeze(-1) - target).abs().mean())
        optimizer.step()

    return step


def mmsa(name: str) -> Any:
    """One module of the package, without what importing all of it would run."""
    if "MMSA" not in sys.modules:
        package = types.ModuleType("MMSA")
        package.__path__ = [str(distribution("MMSA").locate_file("MMSA"))]
        sys.modules["MMSA"] = package
        for room in ("models.singleTask", "trains.singleTask"):
            part = types.ModuleType(f"MMSA.{room}")
            part.__path__ = [str(Path(package.__path__[0], *room.split(".")))]
            sys.modules[f"MMSA.{room}"] = part
    return importlib.import_module(f"MMSA.{name}")


def _random_bert() -> str:
    from transformers import BertConfig, BertModel, BertTokenizer
    from transformers.utils import logging

    cast(Any, logging).disable_progress_bar()

    folder = tempfile.mkdtemp()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(BERT_WORDS - 5))]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    BertModel(BertConfig()).save_pretrained(folder)
    return folder


def work(side: str, name: str, lengths: str, args: argparse.Namespace, pipe: Connection) -> None:
    if args.threads != torch.get_num_threads():  # once set, MKL is slow at small products in a parallel loop
        torch.set_num_threads(args.threads)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.thread_time if args.busy else time.process_time if args.threads == 1 else time.perf_counter
    with freed_memory_kept() if side == "ours" and not args.give_back else nullcontext():  # as our training does
        step = (ours if side == "ours" else theirs)(PAIRS[name], inputs(PAIRS[name], lengths))
        while pipe.recv():
            step()
            start = clock()
            step()
            pipe.send((clock() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, idle / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--lengths", nargs="+", choices=["full", "mosi"], default=["full", "mosi"])
    parser.add_argument("--rounds", type=int, default=3, help="steps of each that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="count the main thread's CPU seconds")
    parser.add_argument("--give-back", action="store_true", help="let ours return freed memory to the system")
    args = parser.parse_args()
    if args.busy:
        os.environ["OMP_WAIT_POLICY"] = "passive"  # read by the processes below; a thread that spins seems to work
    try:
        distribution("MMSA")
    except PackageNotFoundError:
        sys.exit("MMSA is not installed: pip install --no-deps MMSA easydict nvidia-ml-py3 pandas tqdm python-dateutil")
    print("| model | lengths | MMSA, s | ours, s | time | MMSA, MB | ours, MB | memory | net |")
    print(f"| --- | --- |{' ---: |' * 7}")
    context = get_context("spawn")
    for name in args.only:
        for lengths in args.lengths:
            pipes: dict[str, Connection] = {}
            for side in ("theirs", "ours"):
                pipes[side], far = context.Pipe()
                context.Process(target=work, args=(side, name, lengths, args, far), daemon=True).start()
            found: dict[str, list[tuple[float, float, float]]] = {"theirs": [], "ours": []}
            for _ in range(args.rounds):
                for side, pipe in pipes.items():
                    pipe.send(True)
                    found[side].append(pipe.recv())
            for pipe in pipes.values():
                pipe.send(False)
            a, b = ([seconds for seconds, _, _ in found[side]] for side in ("theirs", "ours"))
            (_, high, idle), (_, low, base) = found["theirs"][-1], found["ours"][-1]
            cells = [f"{median(a):.3f}", f"{median(b):.3f}", f"{median(x / y for x, y in zip(a, b, strict=True)):.1f}"]
            cells += [f"{high:.0f}", f"{low:.0f}", f"{low / high:.2f}", f"{(low - base) / (high - idle):.2f}"]
            print(f"| {name} | {lengths} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

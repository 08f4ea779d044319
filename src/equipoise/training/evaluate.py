"""Predictions and metrics of a model on one split: the fusion's, and each modality's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.data import Split
from equipoise.metrics import evaluate_metrics
from equipoise.training.losses import LOSSES, loss_for
from equipoise.training.steps import Autocast, subset_predict


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says of each sample of a split, in the split's order, on the CPU.

    Attributes:
        logits: ``[N]``, ``[N, R]`` or ``[N, C]``.
        unimodal: ``{m: like logits}``.
        own: where ``unimodal`` comes from: the modality's own ``"head"``, or the fusion with it alone ``"kept"``.
        target: ``[N]`` or ``[N, R]``.
    """

    logits: Tensor
    unimodal: dict[str, Tensor]
    own: Literal["head", "kept"]
    target: Tensor


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of a split.

    Attributes:
        loss: the task's loss over all samples.
        metrics: the fusion's, by name.
        modalities: ``{m: metrics}``, each modality's own.
        own: as in `Predictions`.
        predictions: what they were computed from.
    """

    loss: float
    metrics: dict[str, float]
    modalities: dict[str, dict[str, float]]
    own: Literal["head", "kept"]
    predictions: Predictions


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    *,
    modalities: Sequence[str] | None = None,
    batch_size: int = 256,
    autocast: Autocast = nullcontext,
) -> Predictions:
    """Predict every sample of a split, in evaluation mode, on the device that the model is on.

    Args:
        model: exposes ``encode`` and ``fuse``.
        split: what to predict.
        modalities: those to use; None for all of the split.
        batch_size: samples at once; they are taken in the order of their lengths.
        autocast: gives the context of each forward.

    Raises:
        ValueError: the split is empty.
    """
    if len(split) == 0:
        raise ValueError(f"Split {split.name!r} should hold samples. Found none.")
    device = next(model.parameters()).device
    names = list(modalities or split.manifest.modalities)
    order = np.argsort(sum(split.lengths(name) for name in names), kind="stable")
    fused: list[Tensor] = []
    alone: dict[str, list[Tensor]] = {}
    own: Literal["head", "kept"] = "head"
    was_training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        batch = split.batch(order[start : start + batch_size], names).to(device)
        with autocast():
            own, logits, unimodal = _predict_batch(cast(Any, model), batch)
        fused.append(logits.float().cpu())
        for name, values in unimodal.items():
            alone.setdefault(name, []).append(values.float().cpu())
    model.train(was_training)
    back = torch.from_numpy(np.argsort(order))
    return Predictions(
        logits=torch.cat(fused)[back],
        unimodal={name: torch.cat(parts)[back] for name, parts in alone.items()},
        own=own,
        target=torch.from_numpy(np.array(split.targets)),
    )


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    modalities: Sequence[str] | None = None,
    loss: str | None = None,
    batch_size: int = 256,
    autocast: Autocast = nullcontext,
    quiet: bool = False,
) -> Evaluation:
    """Score a model on a split: the fused prediction, and each modality's own.

    Args:
        model: as `predict`, and so ``split``, ``modalities``, ``batch_size`` and ``autocast``.
        split: what to score.
        modalities: those to use.
        loss: a name of `LOSSES`; None for the task's default.
        batch_size: samples at once.
        autocast: gives the context of each forward.
        quiet: no warning where a metric is undefined (it is NaN either way).
    """
    found = predict(model, split, modalities=modalities, batch_size=batch_size, autocast=autocast)
    task, scale = split.manifest.task, split.manifest.labels.scale
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", UserWarning)
        metrics = evaluate_metrics(task, found.logits, found.target, scale=scale)
        own = {
            name: evaluate_metrics(task, values, found.target, scale=scale) for name, values in found.unimodal.items()
        }
    value = LOSSES[loss_for(task, loss)](found.logits, found.target).item()
    return Evaluation(value, metrics, own, found.own, found)


def _predict_batch(model: Any, batch: Batch) -> tuple[Literal["head", "kept"], Tensor, dict[str, Tensor]]:
    encoded = model.encode(batch)
    output = model.fuse(encoded)
    if output.unimodal is not None:
        return "head", output.logits, {name: x for name, x in output.unimodal.items() if name in encoded}
    subsets = [frozenset({name}) for name in encoded]
    kept = subset_predict(model, batch, encoded).batched(subsets)
    return "kept", output.logits, dict(zip(encoded, kept, strict=True))

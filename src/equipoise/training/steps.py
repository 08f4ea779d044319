"""From a model and a batch to what a balancer may know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equipoise.core import Batch, Step, SubsetPredict
from equipoise.data import Split
from equipoise.training.losses import Criterion

Teach = Callable[..., dict[str, Tensor]]
Autocast = Callable[[], AbstractContextManager[Any]]


def subset_predict(
    model: Any, batch: Batch, encoded: dict[str, Any], *, autocast: Autocast = nullcontext
) -> SubsetPredict:
    """``Step.predict``: every subset of the batch's modalities from encoders that ran once.

    An absent modality is one row of neutral input: zeros after the model's normaliser, where it has one. It is encoded
    in evaluation mode, as AGM's released code does.
    """
    muted = batch.muted()
    if (normaliser := getattr(model, "normaliser", None)) is not None:
        muted = normaliser.neutral(muted)
    training = [module for module in model.modules() if module.training]
    model.eval()
    with autocast():
        silent = model.encode(muted)
    for module in training:
        module.training = True

    def fuse(parts: dict[str, Any]) -> Tensor:
        with autocast():
            logits: Tensor = model.fuse(parts).logits
        return logits.float()

    return SubsetPredict(fuse, encoded, silent, module=model)


def make_step(
    model: Any,
    batch: Batch,
    criterion: Criterion,
    *,
    needs: Collection[str] = (),
    unimodal_weight: float = 0.0,
    teachers: Teach | None = None,
    autocast: Autocast = nullcontext,
) -> Step:
    """Run the model once and gather the `Step`; ``predict`` is built only where it is needed.

    While training, a model's own losses are added to the task's: those that its method ``losses(output, batch)``, where
    it has one, gives by name, each weighted already.

    Args:
        model: exposes ``encode`` and ``fuse``.
        batch: on the model's device.
        criterion: ``(logits, target)`` to the loss ``[]``.
        needs: the fields that the balancer reads.
        unimodal_weight: each modality's own loss is added with this weight.
        teachers: gives ``teacher`` of a batch, where it is needed.
        autocast: gives the context of each forward; losses and balancers compute in float32.

    Raises:
        ValueError: ``unimodal_weight`` for a model whose output has no ``unimodal``.
    """
    with autocast():
        encoded = model.encode(batch)
        output = model.fuse(encoded)
    logits = output.logits.float()
    unimodal = None if output.unimodal is None else {name: x.float() for name, x in output.unimodal.items()}
    loss = criterion(logits, batch.target)
    if unimodal_weight:
        if unimodal is None:
            raise ValueError(
                f"Parameter `unimodal_weight` needs a model with unimodal heads. Found {type(model).__name__} without "
                "any: set `train.unimodal_weight` to 0 or choose another model."
            )
        loss = loss + unimodal_weight * torch.stack([criterion(x, batch.target) for x in unimodal.values()]).sum()
    if model.training and hasattr(model, "losses"):
        loss = sum((part.float() for part in model.losses(output, batch).values()), start=loss)
    predict = subset_predict(model, batch, encoded, autocast=autocast) if "predict" in needs else None
    teacher = teachers(batch, autocast=autocast) if teachers is not None and "teacher" in needs else None
    # What a later stage balances has its representations in `extra`; a model that gives none has None of them.
    features = {**output.extra, **output.features} or None
    return Step(loss, logits, batch.target, unimodal, features, predict, criterion, teacher)


def split_steps(
    model: Any,
    split: Split,
    criterion: Criterion,
    *,
    modalities: Sequence[str],
    batch_size: int,
    needs: Collection[str],
    device: torch.device,
    teachers: Teach | None = None,
    autocast: Autocast = nullcontext,
) -> Iterator[Step]:
    """The `Step`\\ s of a whole split, made as they are read. Turn gradients off, and the model to evaluation."""
    for start in range(0, len(split), batch_size):
        batch = split.batch(np.arange(start, min(start + batch_size, len(split))), modalities).to(device)
        yield make_step(model, batch, criterion, needs=needs, teachers=teachers, autocast=autocast)

"""Whether what a modality would learn alone and what all learn together point the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equipoise.core import Modalities
from equipoise.data import Split
from equipoise.training.losses import Criterion
from equipoise.training.steps import Autocast, subset_predict

MOST = 8  # batches: beyond that an epoch's mean gains little


def due_batches(epoch: int, batches: int, every: int) -> int:
    """Batches to spend after an epoch (from 0) of so many: one for every ``every`` trained, `MOST` at most.

    What an epoch is too short for adds up over epochs. It depends on the epoch alone, so a resumed run does the same.

    >>> [due_batches(epoch, 40, 100) for epoch in range(6)]
    [0, 0, 1, 0, 1, 0]
    """
    if not every:
        return 0
    return min((epoch + 1) * batches // every - epoch * batches // every, MOST)


def direction_cosines(
    model: Any,
    split: Split,
    groups: Modalities,
    criterion: Criterion,
    *,
    modalities: Sequence[str],
    batch_size: int,
    batches: int,
    device: torch.device,
    seed: int = 0,
    autocast: Autocast = nullcontext,
) -> dict[str, float | None]:
    r"""Cosine between a modality's own and the joint gradient, for each modality; a mean over batches.

    $$\cos_m = \frac{\langle g_m, h_m \rangle}{\lVert g_m \rVert \lVert h_m \rVert}, \qquad
    g_m = \frac{\partial L(f(x))}{\partial \theta_m}, \quad h_m = \frac{\partial L(f(x_m))}{\partial \theta_m}$$

    - $\theta_m$: parameters of modality m's encoder.
    - $f(x_m)$: the prediction from m alone, the others absent as `subset_predict` has them; so one definition fits
      models with heads of their own and models without.
    - $L$: the task's loss, without what a model or ``unimodal_weight`` adds to it.

    Below 0 the modality is pulled away from what would serve it alone. The model is used as it stands, which should be
    in evaluation mode: nothing is drawn, and no gradient or buffer of it changes. The batches are the same in every
    epoch: the first ``batches`` of one random order of the split. Costs a forward and two backward passes each.

    Args:
        model: exposes ``encode`` and ``fuse``.
        split: where the batches come from.
        groups: each modality's encoder.
        criterion: ``(logits, target)`` to the loss ``[]``.
        modalities: those that the model reads.
        batch_size: samples of a batch; it should stay the same, for a cosine grows with it.
        batches: how many; fewer where the split ends.
        device: where the model is.
        seed: of the order.
        autocast: gives the context of each forward.

    Returns:
        None for a modality where one of the two gradients vanishes in every batch.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in groups}
    order = np.random.default_rng(seed).permutation(len(split))
    for rows in _pieces(order, batch_size, batches):
        batch = split.batch(rows, modalities).to(device)
        with torch.enable_grad(), _without_cudnn(device):  # its recurrent layers have no gradient in evaluation mode
            with autocast():
                encoded = model.encode(batch)
                joint = criterion(model.fuse(encoded).logits.float(), batch.target)
            predict = subset_predict(model, batch, encoded, autocast=autocast)
            own = {name: criterion(predict(frozenset({name})), batch.target) for name in groups}
            for name, cosine in _cosines(joint, own, groups).items():
                if cosine is not None:
                    seen[name].append(cosine)
    return {name: torch.stack(found).mean().item() if found else None for name, found in seen.items()}


def _cosines(joint: Tensor, own: Mapping[str, Tensor], groups: Modalities) -> dict[str, Tensor | None]:
    learning = {name: [p for p in groups.parameters(name) if p.requires_grad] for name in groups}
    flat = [p for parameters in learning.values() for p in parameters]
    both = iter(torch.autograd.grad(joint, flat, retain_graph=True, materialize_grads=True))
    found: dict[str, Tensor | None] = {}
    for name, parameters in learning.items():
        ours = [next(both) for _ in parameters]
        alone = torch.autograd.grad(own[name], parameters, retain_graph=True, materialize_grads=True)
        product = torch.stack([(g * h).sum(dtype=torch.float32) for g, h in zip(ours, alone, strict=True)]).sum()
        norm = _norm(ours) * _norm(alone)
        found[name] = (product / norm).clamp(-1, 1) if norm > 0 else None
    return found


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    return torch.stack([g.float().square().sum() for g in gradients]).sum().sqrt()


def _pieces(order: np.ndarray[Any, np.dtype[np.int64]], size: int, count: int) -> Iterator[Any]:
    for i in range(min(count, max(1, len(order) // size))):
        yield order[i * size : (i + 1) * size]


def _without_cudnn(device: torch.device) -> AbstractContextManager[Any]:
    return torch.backends.cudnn.flags(enabled=False) if device.type == "cuda" else nullcontext()

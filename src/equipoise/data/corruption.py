"""Batches with modalities, frames or precision taken away, by draws that belong to each sample.

Every draw is a function of ``seed``, ``draw`` (an epoch, or a repetition), the kind, the modality and the sample's row
in the dataset. Batches, ranks, resumed runs and the rates of other modalities don't change it, and what is gone at a
low rate is gone at every higher one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from equipoise.core import Batch
from equipoise.data.draws import uniforms
from equipoise.data.ragged import Index

Rates = Mapping[str, float]
Kept = npt.NDArray[np.bool_]


def rates_of(given: float | Rates, names: Sequence[str]) -> dict[str, float]:
    """A rate for each name: the same for all, or by name (0 for those left out).

    >>> rates_of({"text": 0.5}, ["text", "audio"])
    {'text': 0.5, 'audio': 0.0}
    """
    return {name: float(given.get(name, 0.0) if isinstance(given, Mapping) else given) for name in names}


def kept_modalities(rows: Index, present: Mapping[str, Kept], rates: Rates, *, seed: int, draw: int) -> dict[str, Kept]:
    """Which modalities each sample keeps, when each that it has goes with its own rate.

    A sample never loses all that it has: where all would go, the one whose draw u is nearest to its rate r (the
    greatest u / r) stays. With equal rates that is each of them equally often.

    Args:
        rows: ``[B]`` row numbers in the dataset.
        present: ``{m: [B]}``, True where a sample has the modality.
        rates: ``{m: r}`` from 0 to 1; a modality that is not named stays.
        seed: of the draws.
        draw: which of them: an epoch, or a repetition.

    Returns:
        ``{m: [B]}``, False where the sample lacks or loses the modality.
    """
    has = np.stack(list(present.values()))
    rate = np.array([[rates.get(name, 0.0)] for name in present])
    u = np.stack([uniforms(rows, 1, seed, draw, "modality", name)[:, 0] for name in present])
    kept = has & (u >= rate)
    bare = np.flatnonzero(has.any(axis=0) & ~kept.any(axis=0))
    nearness = np.where(has, u / np.maximum(rate, np.finfo(float).tiny), -1.0)
    kept[nearness[:, bare].argmax(axis=0), bare] = True
    return dict(zip(present, kept, strict=True))


def drop_parts(batch: Batch, modalities: Rates, frames: Rates, *, seed: int, draw: int) -> Batch:
    """`drop_modalities`, then `drop_frames` of what is left."""
    return drop_frames(drop_modalities(batch, modalities, seed=seed, draw=draw), frames, seed=seed, draw=draw)


def drop_modalities(batch: Batch, rates: Rates, *, seed: int, draw: int) -> Batch:
    """The batch with whole modalities of samples gone: their masks False, their inputs 0. See `kept_modalities`."""
    if not any(rates.values()):
        return batch
    present = {name: mask.any(dim=1).numpy() for name, mask in batch.masks.items()}
    kept = kept_modalities(batch.index.numpy(), present, rates, seed=seed, draw=draw)
    going = [name for name in batch.masks if rates.get(name)]
    left = {name: batch.masks[name] & torch.from_numpy(kept[name]).unsqueeze(1) for name in going}
    return _masked(batch, left)


def drop_frames(batch: Batch, rates: Rates, *, seed: int, draw: int) -> Batch:
    """The batch with frames gone, each with its modality's rate: its mask False, its input 0.

    The frames that stay keep their places. Of a sample's sequence at least one frame stays, the one whose draw was
    greatest. Of token ids the first and the last token always stay, which are the special ones (``[CLS]``, ``[SEP]``).

    Args:
        batch: on the CPU.
        rates: ``{m: r}`` from 0 to 1; a modality that is not named stays whole.
        seed: of the draws.
        draw: which of them: an epoch, or a repetition.
    """
    if not any(rates.values()):
        return batch
    left: dict[str, Tensor] = {}
    for name, mask in batch.masks.items():
        if not (rate := rates.get(name, 0.0)):
            continue
        u = torch.from_numpy(uniforms(batch.index.numpy(), mask.shape[1], seed, draw, "frame", name))
        u = u.masked_fill(~mask, -1.0)
        stays = u >= rate
        if batch.inputs[name].is_floating_point():
            stays |= _only(u.argmax(dim=1), mask) & ~stays.any(dim=1, keepdim=True)
        else:
            places = torch.arange(1, mask.shape[1] + 1) * mask
            first = places.masked_fill(~mask, mask.shape[1] + 1).argmin(dim=1)
            stays |= _only(first, mask) | _only(places.argmax(dim=1), mask)
        left[name] = mask & stays
    return _masked(batch, left)


def add_noise(
    batch: Batch, scale: float, deviations: Mapping[str, npt.NDArray[np.float64]], *, seed: int, draw: int
) -> Batch:
    """The batch with normal noise on every real frame of the modalities named: ``x + scale * deviation * normal``.

    Args:
        batch: on the CPU.
        scale: the noise's deviation in units of the features' own, not negative.
        deviations: ``{m: [d]}``, those of the training split; a feature that never changes there has 0 and stays.
        seed: of the draws.
        draw: which repetition.

    Raises:
        ValueError: a modality holds token ids.
    """
    inputs = dict(batch.inputs)
    for name, deviation in deviations.items():
        x, mask = inputs[name], batch.masks[name]
        if not x.is_floating_point():
            raise ValueError(f"Modality {name!r} holds token ids, which take no noise. Drop its frames instead.")
        if scale:
            u = torch.from_numpy(uniforms(batch.index.numpy(), x[0].numel(), seed, draw, "noise", name))
            noise = torch.special.ndtri(u).view_as(x) * torch.from_numpy(scale * deviation)
            inputs[name] = x + noise.masked_fill(~mask.unsqueeze(-1), 0).to(x.dtype)
    return replace(batch, inputs=inputs)


def _only(where: Tensor, like: Tensor) -> Tensor:
    """``[B, T]``, True in one place of each row."""
    return torch.arange(like.shape[1]) == where.unsqueeze(1)


def _masked(batch: Batch, left: Mapping[str, Tensor]) -> Batch:
    """The batch under the tighter masks of some modalities, with zeros wherever they are False."""
    inputs = dict(batch.inputs)
    for name, mask in left.items():
        x = inputs[name]
        inputs[name] = x.masked_fill(~mask.view(*mask.shape, *(1 for _ in x.shape[2:])), 0)
    return replace(batch, inputs=inputs, masks={**batch.masks, **left})

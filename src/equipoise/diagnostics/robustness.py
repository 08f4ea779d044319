"""What a trained model loses when modalities or frames are missing, or features are noisy.

Every function yields plain rows, one a level and draw::

    {"kind": "modalities", "of": "text", "level": 0.3, "draw": 0, "share": 0.31, "metrics": {"mae": ...}}

- ``kind``: ``"subset"``, ``"modalities"``, ``"frames"`` or ``"noise"``.
- ``of``: the modality it happens to, or `EVERY`; of a subset the modalities kept, joined by ``+``.
- ``level``: the rate, or the noise's deviation in units of the features' own; None for a subset.
- ``share``: what is gone in truth, of what there was; None for noise.

Draws belong to the samples (`equipoise.data.corruption`): two models meet the same ones, whatever their batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.data import Split
from equipoise.data.corruption import add_noise, drop_frames, kept_modalities
from equipoise.metrics import evaluate_metrics

Row = dict[str, Any]
EVERY = "all"
BATCH = 256


def subsets(model: nn.Module, split: Split, names: Sequence[str]) -> Iterator[Row]:
    """One row for every subset of the modalities but the empty one, the largest first: the first is the plain score.

    Args:
        model: exposes ``encode`` and ``fuse``.
        split: what to predict.
        names: the modalities that the model reads.
    """
    for kept in _subsets(names):
        yield _row(split, predict(model, split, kept), "subset", "+".join(kept), share=1 - len(kept) / len(names))


def missing_modalities(
    model: nn.Module, split: Split, names: Sequence[str], *, rates: Sequence[float], draws: int, seed: int = 0
) -> Iterator[Row]:
    """Rows for each modality missing alone in a rate of the samples, then for all of them at random.

    A sample never loses all that it has, so one that has a single modality keeps it, and at rate 1 of all of them each
    sample is left with one. Samples don't see each other, so the model predicts once from each subset that occurs, and
    every rate and draw picks from these predictions.

    Args:
        model: as `subsets`, and so ``split`` and ``names``.
        split: what to predict.
        names: at least two, else there is no row.
        rates: from 0 to 1.
        draws: how often each is drawn.
        seed: of the draws.
    """
    present = {name: split.lengths(name) > 0 for name in names}
    had = np.stack(list(present.values()), axis=1)
    known: dict[tuple[str, ...], Tensor] = {}
    for of in _each_and_all(names) if len(names) > 1 else []:
        for rate in rates:
            for draw in range(draws):
                gone = {name: rate for name in names if of in (name, EVERY)}
                kept = kept_modalities(split.rows, present, gone, seed=seed, draw=draw)
                left = np.stack([kept[name] for name in names], axis=1)
                logits = _picked(model, split, names, left | ~had, known)
                hit = had[:, [name in gone for name in names]]
                share = float((had & ~left).sum() / max(1, hit.sum()))
                yield _row(split, logits, "modalities", of, rate, draw, share)


def missing_frames(
    model: nn.Module, split: Split, names: Sequence[str], *, rates: Sequence[float], draws: int, seed: int = 0
) -> Iterator[Row]:
    """Rows for a rate of the frames missing in each modality, then in all of them.

    One frame of each sequence stays; of token ids the special tokens do, so these are masked words. Arguments are those
    of `missing_modalities`.
    """
    for of in _each_and_all(names):
        for rate in rates:
            for draw in range(draws):
                thinned = _Thinned({name: rate for name in names if of in (name, EVERY)}, seed, draw)
                logits = predict(model, split, names, thinned)
                yield _row(split, logits, "frames", of, rate, draw, thinned.share)


def noisy_features(
    model: nn.Module,
    split: Split,
    names: Sequence[str],
    *,
    scales: Sequence[float],
    deviations: Mapping[str, npt.NDArray[np.float64]],
    draws: int,
    seed: int = 0,
) -> Iterator[Row]:
    """Rows for normal noise on each modality's features, then on all of them.

    Token ids take no noise: a modality that is not in ``deviations`` is left out, and stays as it is when the others
    are disturbed.

    Args:
        model: as `missing_modalities`, and so what is not named here.
        split: what to predict.
        names: the modalities that the model reads.
        scales: the noise's deviation in units of the features' own.
        deviations: ``{m: [d]}`` of the training split.
        draws: how often each is drawn.
        seed: of the draws.
    """
    disturbed = [name for name in names if name in deviations]
    for of in _each_and_all(disturbed):
        hit = {name: deviations[name] for name in disturbed if of in (name, EVERY)}
        for scale in scales:
            for draw in range(draws):
                change = partial(add_noise, scale=scale, deviations=hit, seed=seed, draw=draw)
                logits = predict(model, split, names, change)
                yield _row(split, logits, "noise", of, scale, draw)


@torch.no_grad()
def predict(
    model: nn.Module, split: Split, names: Sequence[str], change: Callable[[Batch], Batch] | None = None
) -> Tensor:
    """Logits of a split on the CPU, in its order, from these modalities alone; ``change`` is made to every batch."""
    net: Any = model
    device = next(model.parameters()).device
    order = np.argsort(sum(split.lengths(name) for name in names), kind="stable")
    was_training = model.training
    model.eval()
    found: list[Tensor] = []
    for start in range(0, len(order), BATCH):
        batch = split.batch(order[start : start + BATCH], names)
        batch = batch if change is None else change(batch)
        found.append(net.fuse(net.encode(batch.to(device))).logits.float().cpu())
    model.train(was_training)
    return torch.cat(found)[torch.from_numpy(np.argsort(order))]


def count_rows(names: Sequence[str], disturbed: int, *, drop: int, frames: int, noise: int, draws: int) -> int:
    """How many rows the four functions yield together, for so many levels each and so many modalities with features."""
    each = len(names) + (len(names) > 1)
    drops = each * drop if len(names) > 1 else 0
    noises = (disturbed + (disturbed > 1)) * noise
    return (1 << len(names)) - 1 + draws * (drops + each * frames + noises)


@dataclass
class _Thinned:
    """Drops frames, and counts them."""

    rates: dict[str, float]
    seed: int
    draw: int
    before: int = 0
    after: int = 0

    def __call__(self, batch: Batch) -> Batch:
        found = drop_frames(batch, self.rates, seed=self.seed, draw=self.draw)
        self.before += sum(int(batch.masks[name].sum()) for name in self.rates)
        self.after += sum(int(found.masks[name].sum()) for name in self.rates)
        return found

    @property
    def share(self) -> float:
        return 1 - self.after / self.before if self.before else 0.0


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [kept for size in range(len(names), 0, -1) for kept in combinations(names, size)]


def _each_and_all(names: Sequence[str]) -> list[str]:
    return [*names, EVERY] if len(names) > 1 else list(names)


def _picked(
    model: nn.Module,
    split: Split,
    names: Sequence[str],
    left: npt.NDArray[np.bool_],
    known: dict[tuple[str, ...], Tensor],
) -> Tensor:
    """Each sample's logits from the subset that is left to it; ``known`` is filled with what was predicted."""
    patterns, which = np.unique(left, axis=0, return_inverse=True)
    picked: Tensor | None = None
    for number, pattern in enumerate(patterns):
        kept = tuple(name for name, stays in zip(names, pattern, strict=True) if stays)
        if kept not in known:
            known[kept] = predict(model, split, kept)
        picked = torch.empty_like(known[kept]) if picked is None else picked
        rows = torch.from_numpy(np.flatnonzero(which.reshape(-1) == number))
        picked[rows] = known[kept][rows]
    assert picked is not None
    return picked


def _row(
    split: Split,
    logits: Tensor,
    kind: str,
    of: str,
    level: float | None = None,
    draw: int = 0,
    share: float | None = None,
) -> Row:
    labels, target = split.manifest.labels, torch.from_numpy(np.array(split.targets))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a metric may be undefined here, and is NaN then
        metrics = evaluate_metrics(split.manifest.task, logits, target, scale=labels.scale)
    return {"kind": kind, "of": of, "level": level, "draw": draw, "share": share, "metrics": metrics}

"""How far a model's predictions lie from the truth on validation data, for the intervals of new ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.data import Split

LEVELS = (0.5, 0.8, 0.9, 0.95)
EVERY_SUBSET_UP_TO = 6  # modalities; beyond, each alone and all together
_BATCH = 256


@dataclass(frozen=True, slots=True)
class SubsetCalibration:
    """The errors where some modalities are there, and no other.

    Attributes:
        samples: validation samples that have all of these modalities.
        quantiles: ``[levels][targets]``, the error that as large a part of new samples keeps within; None where there
            are too few samples to say. Of classes there is one number, of 1 - the probability of the true class.
    """

    samples: int
    quantiles: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Quantiles of validation errors.

    Attributes:
        levels: parts of new samples, ascending.
        subsets: by the names of the modalities that are there, see `subset_key`.
    """

    levels: tuple[float, ...]
    subsets: dict[str, SubsetCalibration]


def subset_key(modalities: Sequence[str]) -> str:
    """``audio+text`` for these modalities in any order."""
    return "+".join(sorted(modalities))


@torch.no_grad()
def calibrate(
    model: nn.Module, valid: Split, modalities: Sequence[str], *, levels: Sequence[float] = LEVELS
) -> Calibration:
    """Split conformal prediction: errors on samples that the weights were not fitted to, for each subset of modalities.

    A new sample's error keeps within the quantile with at least the level's probability if it and the validation
    samples are exchangeable. Validation data that chose the epoch are not quite that.

    Args:
        model: exposes ``encode`` and ``fuse``; on any device.
        valid: samples that it was not trained on.
        modalities: those that it reads.
        levels: between 0 and 1.
    """
    names, device = tuple(modalities), next(model.parameters()).device
    subsets = [kept for size in range(1, len(names) + 1) for kept in combinations(names, size)]
    if len(names) > EVERY_SUBSET_UP_TO:
        subsets = [kept for kept in subsets if len(kept) in (1, len(names))]
    there = {name: valid.lengths(name) > 0 for name in names}
    order = np.argsort(np.sum([valid.lengths(name) for name in names], axis=0), kind="stable")
    found: dict[tuple[str, ...], list[Tensor]] = {kept: [] for kept in subsets}
    task, was_training = valid.manifest.task, model.training
    model.eval()
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        batch = valid.batch(rows, names).to(device)
        encoded = cast(Any, model).encode(batch)
        for kept in subsets:
            logits = cast(Any, model).fuse({name: encoded[name] for name in kept}).logits.float()
            whole = torch.from_numpy(np.all([there[name][rows] for name in kept], axis=0))
            found[kept].append(errors(task, logits, batch.target).cpu()[whole])
    model.train(was_training)
    calibrated = {subset_key(kept): _calibrated(torch.cat(parts), levels) for kept, parts in found.items()}
    return Calibration(tuple(levels), calibrated)


def errors(task: str, logits: Tensor, target: Tensor) -> Tensor:
    """``[N, R]`` absolute errors, or ``[N, 1]`` of 1 - the probability of the true class."""
    if task == "classification":
        return 1 - logits.softmax(dim=-1).gather(1, target.unsqueeze(1))
    return (logits - target).abs().reshape(len(target), -1)


def conformal_quantile(scores: Sequence[float], level: float) -> float | None:
    """The ``ceil((n + 1) level)``-th smallest of n scores; None where there are too few, or it is no number.

    >>> conformal_quantile([3.0, 1.0, 2.0, 4.0], 0.8)
    4.0
    """
    rank = math.ceil(round((len(scores) + 1) * level, 9))  # 0.8 * 5 may come out a little above 4
    ordered = sorted(math.inf if math.isnan(score) else score for score in scores)
    return ordered[rank - 1] if rank <= len(scores) and ordered[rank - 1] < math.inf else None


def _calibrated(found: Tensor, levels: Sequence[float]) -> SubsetCalibration:
    columns = found.double().T.tolist()
    quantiles = tuple(tuple(conformal_quantile(column, level) for column in columns) for level in levels)
    return SubsetCalibration(len(found), quantiles)

"""A few epochs on a few utterances: whether a model learns at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from equipoise.data import Dataset
from equipoise.data.synthetic import synthetic
from equipoise.training.loop import fit

DATA_DIMS = {"text": 6, "audio": 5, "vision": 4}


def few_utterances(folder: Path, *, task: Literal["regression", "classification"] = "regression") -> Dataset:
    """42 training, 6 validation and 12 test utterances, of `DATA_DIMS`."""
    return synthetic(
        folder, n=60, task=task, dims=DATA_DIMS, lengths={"text": (1, 4), "audio": (2, 6), "vision": (1, 5)}
    )


def epoch_losses(
    build: Callable[[], nn.Module], data: Dataset, *, epochs: int = 4, batch_size: int = 14, lr: float = 0.02
) -> list[float]:
    """The training loss of each epoch of a model that is built with seed 0."""
    losses: list[float] = []

    def note(_step: int, _steps: int, row: Any) -> None:
        if row is not None:
            losses.append(row["train_loss"])

    torch.manual_seed(0)
    train, valid = data.split("train"), data.split("valid")
    fit(build(), train=train, valid=valid, epochs=epochs, batch_size=batch_size, lr=lr, progress=note)
    return losses

"""Where a training run stands, and how it gets there again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from equipoise.core import Balancer
from equipoise.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from equipoise.training.state import load_state

FINAL = "final"


@dataclass
class Progress:
    """Counters of a run; all that a checkpoint holds besides tensors.

    Attributes:
        epoch: epochs done.
        batch: batches of the running epoch done.
        step: optimizer steps done.
        best_epoch: the epoch (from 1) with the best validation score; 0 before the first.
        best_score: that score, then minus the loss to break ties; larger is better.
        best_row: that epoch's row of ``metrics.csv``.
        totals: sums of the running epoch (see `Recorder`).
        seconds: of training in the running epoch.
        all_seconds: of the epochs done.
        done: nothing is left to train.
        sizes: bytes of the tables.
        scaler: the loss scaler of ``fp16``.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    best_row: dict[str, float | int | None] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    all_seconds: float = 0.0
    done: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)

    def save(
        self,
        folder: Path,
        *,
        model: nn.Module,
        best: Mapping[str, Tensor],
        optimizer: Any,
        balancer: Balancer | None,
    ) -> None:
        """Write a checkpoint of everything that decides what comes next."""
        tensors = {"model": model.state_dict(), "best": best, "optimizer": optimizer_tensors(optimizer)}
        if balancer is not None:
            tensors["balancer"] = balancer.state_dict()
        name = f"epoch-{self.epoch:05d}-batch-{self.batch:07d}"
        save_checkpoint(folder, name, tensors, asdict(self))

    def save_final(self, folder: Path, best: Mapping[str, Tensor]) -> None:
        """Write the trained model alone, and let go of the checkpoints that led to it."""
        self.done = True
        save_checkpoint(folder, FINAL, {"best": best}, asdict(self), keep=1)


def restore(
    folder: Path, *, model: nn.Module, optimizer: Any, balancer: Balancer | None, scaler: Any
) -> tuple[Progress, dict[str, Tensor]]:
    """Bring everything back to the latest checkpoint; a fresh start where there is none.

    Returns:
        The progress, and the best weights so far (none before the first validation).

    Raises:
        ValueError: all checkpoints are broken, or they are of another model.
    """
    found = load_checkpoint(folder)
    if found is None:
        return Progress(), {}
    try:
        progress = Progress(**found.state)
    except TypeError:
        raise ValueError(
            f"Checkpoint {folder / found.name} was written by another version of equipoise: its counters have other "
            "names. Install that version, or start anew without resuming (`--no-resume`)."
        ) from None
    if not progress.done:
        _load(model, found, "model")
        load_optimizer_tensors(optimizer, found.tensors["optimizer"])
        if balancer is not None:
            _load(balancer, found, "balancer")
        if scaler is not None and progress.scaler:
            scaler.load_state_dict(progress.scaler)
    return progress, found.tensors["best"]


def _load(module: nn.Module, found: Checkpoint, part: str) -> None:
    try:
        load_state(module, found.tensors[part])
    except (KeyError, RuntimeError):
        raise ValueError(
            f"Checkpoint {found.name} does not fit this {type(module).__name__}: its tensors have other names or "
            "shapes. Rebuild it as it was, or start anew without resuming (`--no-resume`)."
        ) from None

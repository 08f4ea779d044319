"""What a worker does with a cell: the run of its config, in the store's own run directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import accelerate  # type: ignore[import-untyped]  # noqa: F401 - slow to load: here it is, once for all workers
from tensorboard.summary.writer import record_writer  # noqa: F401 - likewise

from equipoise.experiments.cell import Cell
from equipoise.experiments.store import Store
from equipoise.training.run import run


def train_cells(store: Store) -> Callable[[Cell], Mapping[str, Any]]:
    """The function that `run_cells` takes to train cells: it returns ``test.json``, of a trial ``valid.json``."""
    return partial(_train, store)


def _train(store: Store, cell: Cell) -> Mapping[str, Any]:
    folder = store.run_dir(cell.id)
    found = run(cell.config, folder, split=cell.split)
    if cell.split == "valid":
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # nobody predicts with a trial, and there are many
    return found

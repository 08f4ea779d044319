"""What a worker does with a cell: the run of its config, in the store's own run directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import accelerate  # type: ignore[import-untyped]  # noqa: F401 - slow to load: here it is, once for all workers
from tensorboard.summary.writer import record_writer  # noqa: F401 - likewise

from equipoise.experiments.cell import Cell
from equipoise.experiments.store import Store
from equipoise.training.run import run


def train_cells(store: Store) -> Callable[[Cell], Mapping[str, Any]]:
    """The function that `run_cells` takes to train cells: it returns the content of ``test.json``."""
    return partial(_train, store)


def _train(store: Store, cell: Cell) -> Mapping[str, Any]:
    return run(cell.config, store.run_dir(cell.id))

"""Studies of a small grid, and a known landscape in place of their trainings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from equipoise.experiments.cell import Cell
from equipoise.experiments.grid import make_grid
from equipoise.experiments.plan import plan_studies
from equipoise.experiments.store import Store
from equipoise.experiments.study import Study
from equipoise.experiments.tuner import Tuner

SMALL = {"LateFusion": {"model.hidden": 4, "model.encoder": "mean"}}
WIDE = {"train.lr": {"low": 1e-5, "high": 1.0, "log": True}}


def studies(data: Path, **values: Any) -> list[Study]:
    base = {"train.epochs": 1, **values.pop("base", {})}
    start = {"datasets": {"small": str(data)}, "models": SMALL, "base": base, "seeds": [0, 1], "tuning": 3}
    return plan_studies(make_grid({**start, **values}))


def scored(cell: Cell) -> dict[str, Any]:
    """A known landscape in place of a training: the best learning rate is 0.01, with a little luck of the seed."""
    return {"metrics": {"mae": (math.log10(cell.config.train.lr) + 2) ** 2 + 1e-6 * cell.seed}}


def tuned(found: list[Study], store: Store, *, at_once: int = 100, last_first: bool = False, **more: Any) -> Tuner:
    """Trials on the known landscape, so many of each batch at once."""
    tuner = Tuner(found, store, **more)
    while batch := list(tuner.advance().values()):
        for cell in (batch[::-1] if last_first else batch)[:at_once]:
            store.put(cell.id, {"result": scored(cell)})
    return tuner

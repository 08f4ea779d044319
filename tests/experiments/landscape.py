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

GRID = """\
datasets: {small: DATA}
models: {LateFusion: {model.hidden: 4, model.encoder: mean}}
methods: [plain, ags]
seeds: [0]
controls: false
base: {train: {epochs: 1, batch_size: 32}, search: {train.lr: {low: 1.0e-4, high: 0.1, log: true}}}
tuning: {trials: 4STORAGE}
"""


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


def tuned_grid(folder: Path, data: Path, url: str | None = None) -> Path:
    """A file that tunes two methods, with trials in the database of a URL or in a file of their own."""
    folder.mkdir(exist_ok=True)
    storage = "" if url is None else f', storage: "{url}"'
    (folder / "grid.yaml").write_text(GRID.replace("DATA", str(data)).replace("STORAGE", storage))
    return folder / "grid.yaml"

"""One tiny cell trained by a Ray cluster started for it: ``python -m tests.experiments.ray_here DATA STORE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from equipoise.experiments.cell import Cell, make_cell
from equipoise.experiments.pool import run_cells
from equipoise.experiments.store import Store
from equipoise.experiments.train import train_cells
from equipoise.training.config import make_config


def tiny_cell(data: Path) -> Cell:
    model = {"name": "LateFusion", "hidden": 4, "encoder": "mean"}
    train = {"epochs": 2, "batch_size": 32}
    config = make_config({"data": str(data), "seed": 3, "model": model, "train": train, "balancer": "ags"})
    return make_cell(config, dataset="small", model="LateFusion", method="ags")


def main(data: Path, folder: Path) -> None:
    said: list[str] = []
    addresses: set[str] = set()

    def told(cell: Cell, what: str, seconds: float) -> None:
        import ray  # not before the engine: Ray reads once, when it loads, where to listen

        said.append(what)
        addresses.update(node["NodeManagerAddress"] for node in ray.nodes())  # type: ignore[no-untyped-call]

    store = Store(folder)
    run_cells([tiny_cell(data)], train_cells(store), store, engine="ray", told=told)
    print(json.dumps({"addresses": sorted(addresses), "told": said}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

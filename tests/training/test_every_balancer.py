"""Every balancer by its name in a config: trained, recorded, stopped and resumed."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest

from equipoise.balancers import BALANCERS
from equipoise.data import Dataset
from equipoise.training.config import RunConfig, make_config
from equipoise.training.run import run

# UMT needs teachers, and has tests of its own.
NAMES = [name for name in BALANCERS if name != "umt"]
# Settings with which they act within three epochs.
EARLY: dict[str, dict[str, Any]] = {
    "g_blending": {"super_epoch": 1},
    "mslr": {"history": 2},
    "relearning": {"every": 1},
    "recon_boost": {"epochs": 1, "rectify": 1},
    "mses": {"patience": 1},
}


class Stopped(Exception):
    pass


def config_of(data: Dataset, name: str) -> RunConfig:
    train = {"epochs": 3, "batch_size": 14, "lr": 0.05, "checkpoint_every": 4, "trace_every": 2, "direction_every": 2}
    model = {"name": "LateFusion", "hidden": 4, "encoder": "mean", "combine": "mean" if name == "ume" else "sum"}
    balancer = {"name": name, **EARLY.get(name, {})}
    return make_config({"data": str(data.path), "model": model, "balancer": balancer, "train": train})


@pytest.mark.parametrize("task", ["values", "classes"])
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_records_what_it_did_and_resumes(
    name: str, task: str, dataset: Dataset, classes: Dataset, tmp_path: Path
) -> None:
    data = dataset if task == "values" else classes
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    report = run(config_of(data, name), whole)
    assert math.isfinite(report["metrics"]["mae" if task == "values" else "nll"])
    with (whole / "steps.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    columns = [key for key in steps[0] if key.split("/")[0] in {"factor", *BALANCERS[name].records}]
    assert columns
    assert any(row[column] for row in steps for column in columns), f"nothing in {columns}"

    def stop(step: int, steps: int, row: object) -> None:
        if step == 5:  # of nine: in the middle of the second epoch
            raise Stopped

    with pytest.raises(Stopped):
        run(config_of(data, name), cut, progress=stop)
    run(config_of(data, name), cut)
    for table in ("predictions.csv", "steps.csv", "metrics.csv"):
        assert (cut / table).read_bytes() == (whole / table).read_bytes(), table

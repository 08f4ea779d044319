from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from equipoise.data import synthetic
from equipoise.experiments.collect import collect_errors, collect_rows
from equipoise.experiments.grid import make_grid
from equipoise.experiments.plan import plan
from equipoise.experiments.store import Store
from equipoise.experiments.train import train_cells


def column(path: Path, name: str) -> list[float]:
    with (path / "predictions.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_rows_bear_their_cells_names_and_modalities_alone_are_mixed(tmp_path: Path) -> None:
    synthetic(tmp_path / "data", n=60, seed=3)
    cells = plan(
        make_grid(
            {
                "datasets": {"mine": str(tmp_path / "data")},
                "models": {"small": {"model": "LateFusion", "model.hidden": 4, "model.encoder": "mean"}},
                "seeds": [7],
                "base": {"train.epochs": 1, "modalities": ["text", "audio"]},
            }
        )
    )
    names = ["plain", "text alone", "audio alone", "multi-loss"]
    assert [cell.method for cell in cells] == names
    store = Store(tmp_path / "store")
    train = train_cells(store)
    for cell in cells[:3]:
        store.put(cell.id, {"result": dict(train(cell))})
    store.put(cells[3].id, {"error": "no"}, failed=True)

    rows = collect_rows(cells, store)
    assert [row.method for row in rows] == [*names[:3], "ensemble of each alone"]
    assert [row.role for row in rows] == ["plain", "alone", "alone", "ensemble"]
    assert {(row.dataset, row.model, row.seed) for row in rows} == {("mine", "small", 7)}
    assert all(row.marks == rows[0].marks for row in rows)

    text, audio = (store.run_dir(cell.id) for cell in cells[1:3])
    mixed = (np.array(column(text, "prediction")) + np.array(column(audio, "prediction"))) / 2
    errors = np.abs(mixed - np.array(column(text, "target")))
    assert rows[3].metrics["mae"] == pytest.approx(errors.mean(), rel=1e-6)
    assert rows[3].scores["mae"] == pytest.approx(errors)
    assert rows[3].samples == rows[0].samples
    assert collect_errors(cells, store) == {"mine, small, multi-loss, seed 7": "no"}

    assert len(collect_rows(cells[:2], store)) == 2  # one modality is no ensemble

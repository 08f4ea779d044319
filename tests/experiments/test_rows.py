from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.experiments.rows import read_row, sample_scores
from equipoise.metrics import evaluate_metrics

DRAWS = np.random.default_rng(5)


@pytest.mark.parametrize("scale", ["mosi", "sims", None])
def test_scores_of_samples_average_to_the_metric(scale: str | None) -> None:
    reach = 1.3 if scale == "sims" else 4.0
    target = np.round(DRAWS.uniform(-reach, reach, 200), 1).astype(np.float32)
    target[:20] = 0
    target[20:24] = (0.1, -0.1, 0.7, -0.7)
    guess = np.round(DRAWS.uniform(-reach, reach, 200), 1).astype(np.float32)
    metrics = evaluate_metrics("regression", guess, target, scale=scale)
    found = sample_scores(guess[:, None].astype(float), target[:, None].astype(float), metrics)
    assert set(found) == {name for name in metrics if name == "mae" or name.startswith("acc")}
    for name, values in found.items():
        assert np.nanmean(values) == pytest.approx(metrics[name], abs=1e-6), name


def test_a_neutral_sample_has_no_score_of_polarity() -> None:
    found = sample_scores(np.array([[1.0], [-1.0]]), np.array([[0.0], [-2.0]]), {"acc7": 0, "acc2_nn": 0})
    assert math.isnan(found["acc2_pn"][0])
    assert found["acc2_pn"][1] == 1
    assert found["acc2_nn"].tolist() == [1, 1]


def test_several_outputs_are_averaged() -> None:
    found = sample_scores(np.array([[1.0, 3.0]]), np.array([[0.0, 0.0]]), {"mae": 2.0, "corr": 0.0})
    assert found["mae"].tolist() == [2.0]


def write_run(folder: Path, metrics: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    dataset = {"name": "toy", "synthetic": True, "leaks": True}
    test = {"seed": 3, "model": "LateFusion", "balancer": ["agm", "sl"], "metrics": metrics, "dataset": dataset}
    (folder / "test.json").write_text(json.dumps(test))
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_a_run_directory_becomes_a_row(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "target": 1, "prediction": 1, "probability/0": 0.2, "prediction/audio": 0},
        {"id": "b", "target": 0, "prediction": 1, "probability/0": 0.4, "prediction/audio": 0},
    ]
    row = read_row(write_run(tmp_path / "run", {"accuracy": 0.5, "nll": 0.9, "ece": None}, rows), trials=4)
    assert (row.dataset, row.model, row.method, row.seed, row.trials) == ("toy", "LateFusion", "agm + sl", 3, 4)
    assert row.scores == {"accuracy": (1.0, 0.0)}
    assert row.samples == ("a", "b")
    assert math.isnan(row.metrics["ece"])
    assert row.marks == ("synthetic data", "splits leak")


def test_each_modalitys_own_predictions_are_not_the_fusions(tmp_path: Path) -> None:
    rows = [{"id": "a", "target/x": 0, "target/y": 0, "prediction/x": 1, "prediction/y": 2, "prediction/audio/x": 9,
             "prediction/audio/y": 9}]  # fmt: skip
    assert read_row(write_run(tmp_path / "run", {"mae": 1.5, "corr": None}, rows)).scores == {"mae": (1.5,)}


def test_predictions_of_another_run_are_noticed(tmp_path: Path) -> None:
    rows = [{"id": "a", "target": 1.0, "prediction": 0.5}]
    folder = write_run(tmp_path / "run", {"mae": 0.75, "corr": None}, rows)
    with pytest.raises(ValueError, match=r"give mae 0.500000, `test.json` says 0.750000"):
        read_row(folder)

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error
from tests.experiments.test_rows import write_run

from equipoise.experiments.ensembles import ensemble_rows
from equipoise.experiments.rows import Row, read_row
from equipoise.metrics import evaluate_metrics

DRAWS = np.random.default_rng(3)


def alone(folder: Path, name: str, metrics: dict[str, Any], rows: list[dict[str, Any]]) -> Row:
    return read_row(write_run(folder / name, metrics, rows), method=f"{name} alone", role="alone")


def test_values_are_averaged(tmp_path: Path) -> None:
    target = np.array([1.5, -2.0, 0.0, 0.5])
    guesses = {name: DRAWS.normal(size=4) for name in ("audio", "text")}
    members = []
    for name, guess in guesses.items():
        rows = [{"id": i, "target": t, "prediction": p} for i, (t, p) in enumerate(zip(target, guess, strict=True))]
        members.append(alone(tmp_path, name, evaluate_metrics("regression", guess, target, scale="mosi"), rows))
    (row,) = ensemble_rows(members)
    mean = (guesses["audio"] + guesses["text"]) / 2
    assert (row.role, row.seed) == ("ensemble", 3)
    assert row.metrics["mae"] == pytest.approx(mean_absolute_error(target, mean))
    assert np.mean(row.scores["acc7"]) == row.metrics["acc7"]
    assert row.path is not None
    assert row.path.split() == [member.path for member in members]


def test_probabilities_are_averaged(tmp_path: Path) -> None:
    target = DRAWS.integers(0, 3, 12)
    given = DRAWS.dirichlet([1, 1, 1], (2, 12))
    members = []
    for name, each in zip(("audio", "text"), given, strict=True):
        rows = [
            {"id": i, "target": int(t), "prediction": int(p.argmax()), **{f"probability/c{j}": p[j] for j in range(3)}}
            for i, (t, p) in enumerate(zip(target, each, strict=True))
        ]
        metrics = {"accuracy": float((each.argmax(axis=1) == target).mean())}
        members.append(alone(tmp_path, name, metrics, rows))
    (row,) = ensemble_rows(members)
    mean = given.mean(axis=0)
    assert row.metrics["accuracy"] == pytest.approx(accuracy_score(target, mean.argmax(axis=1)))
    assert row.metrics["f1_weighted"] == pytest.approx(f1_score(target, mean.argmax(axis=1), average="weighted"))
    assert row.metrics["nll"] == pytest.approx(log_loss(target, mean, labels=[0, 1, 2]))
    assert np.mean(row.scores["accuracy"]) == pytest.approx(row.metrics["accuracy"])


def test_one_modality_is_no_ensemble_and_other_samples_are_noticed(tmp_path: Path) -> None:
    first = alone(tmp_path, "audio", {"mae": 0.5, "corr": None}, [{"id": "a", "target": 1.0, "prediction": 0.5}])
    other = alone(tmp_path, "text", {"mae": 0.5, "corr": None}, [{"id": "b", "target": 1.0, "prediction": 0.5}])
    assert ensemble_rows([first]) == []
    with pytest.raises(ValueError, match="its samples are not those of"):
        ensemble_rows([first, other])

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.data import Dataset, load
from equipoise.data.synthetic import synthetic
from equipoise.diagnostics.controls import Controls, control_configs, run_controls
from equipoise.metrics import evaluate_metrics
from equipoise.training.config import RunConfig, make_config
from equipoise.training.evaluate import predict
from equipoise.training.run import load_run, run

SMALL: dict[str, Any] = {
    "n": 80,
    "modalities": ("text", "audio"),
    "alone": {"text": 0.5, "audio": 0.1},
    "dims": {"text": 6, "audio": 5},
    "lengths": {"text": (1, 4), "audio": (2, 6)},
}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.mktemp("data") / "values", **SMALL)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.mktemp("data") / "classes", task="classification", **SMALL)


def config_of(data: Dataset, **given: Any) -> RunConfig:
    model = {"name": "LateFusion", "hidden": 4, "encoder": "mean"}
    train = {"epochs": 1, "batch_size": 16, "lr": 0.01}
    return make_config({"data": str(data.path), "model": model, "train": train, "balancer": "ags", **given})


class Trains:
    """Trains, and counts optimizer steps by control."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    def __call__(self, config: dict[str, Any], folder: Path) -> None:
        def count(*_: object) -> None:
            self.steps[folder.name] = self.steps.get(folder.name, 0) + 1

        run(make_config(config), folder, progress=count)


def named(found: Controls) -> dict[str, Any]:
    return {row.name: row for row in found.rows}


def column(path: Path, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    with path.open(newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


def test_of_values_the_ensemble_is_the_mean_and_a_second_call_trains_nothing(values: Dataset, tmp_path: Path) -> None:
    run(config_of(values), tmp_path)
    train = Trains()
    heard: list[tuple[int, int]] = []
    found = run_controls(tmp_path, train, metric="neg_mae", progress=lambda done, of: heard.append((done, of)))
    assert list(named(found)) == ["the run", "text alone", "audio alone", "unbalanced", "multi-loss", "ensemble"]
    assert set(train.steps) == {"alone-text", "alone-audio", "unbalanced", "multi-loss"}
    assert len(set(train.steps.values())) == 1, "an equal budget"
    assert heard == [(i, 4) for i in range(5)]

    said = {row: column(tmp_path / "controls" / row / "predictions.csv", "prediction") for row in train.steps}
    target = column(tmp_path / "predictions.csv", "target")
    rows = named(found)
    mixed = (said["alone-text"] + said["alone-audio"]) / 2
    assert rows["ensemble"].metrics["mae"] == pytest.approx(np.abs(mixed - target).mean(), rel=1e-5)
    assert rows["ensemble"].epochs == 2
    ours = -np.abs(column(tmp_path / "predictions.csv", "prediction") - target)
    for name, theirs in (("text alone", said["alone-text"]), ("unbalanced", said["unbalanced"]), ("ensemble", mixed)):
        error = -np.abs(theirs - target)
        assert rows[name].score.value == pytest.approx(error.mean())
        assert rows[name].lead.value == pytest.approx((ours - error).mean())
        assert rows[name].lead.low <= rows[name].lead.value <= rows[name].lead.high
    assert rows["the run"].lead is None

    again = Trains()
    assert run_controls(tmp_path, again, metric="neg_mae").to_dict() == found.to_dict()
    assert again.steps == {}


def test_of_classes_logits_and_probabilities_are_two_ensembles(classes: Dataset, tmp_path: Path) -> None:
    run(config_of(classes), tmp_path)
    found = named(run_controls(tmp_path, Trains(), multi_loss=False))
    test = load(str(classes.path)).split("test")
    alone = [load_run(tmp_path / "controls" / f"alone-{name}") for name in ("text", "audio")]
    logits = [predict(each.model, test, modalities=each.modalities).logits for each in alone]
    target = torch.from_numpy(np.array(test.targets))
    probabilities = torch.stack([each.softmax(dim=1) for each in logits]).mean(dim=0)
    for name, expected in (("logits", sum(logits)), ("probabilities", probabilities.log())):
        metrics = evaluate_metrics("classification", expected, target)  # type: ignore[arg-type]
        assert found[f"ensemble, {name}"].metrics == pytest.approx(metrics, rel=1e-4)
    assert "multi-loss" not in found


def test_what_can_not_be_trained_says_why(values: Dataset, tmp_path: Path) -> None:
    config = config_of(values, model={"name": "FiLM", "hidden": 4, "base": "text"}, balancer=[])
    run(config, tmp_path)

    def refuse(config: dict[str, Any], folder: Path) -> None:
        if config["modalities"] == ["audio"]:
            raise ValueError("FiLM needs `base`.")
        Trains()(config, folder)

    found = named(run_controls(tmp_path, refuse, multi_loss=False))
    assert found["audio alone"].reason == "FiLM needs `base`."
    assert found["ensemble"].reason == "there is no audio alone"
    assert found["text alone"].lead is not None
    assert found["audio alone"].score is None
    assert "unbalanced" not in found  # the run has no balancer


def test_what_a_control_changes_and_what_it_keeps(values: Dataset) -> None:
    config = config_of(values, seed=7, text={"encoder": "minilm"}).model_dump(mode="json")
    found = control_configs(config, ["text", "audio"])
    for name, (_, given) in found.items():
        changed = {key for key in config if given[key] != config[key]}
        assert (
            changed
            == {
                "alone-text": {"balancer", "modalities"},
                "alone-audio": {"balancer", "modalities", "text"},
                "unbalanced": {"balancer"},
                "multi-loss": {"balancer", "train"},
            }[name]
        )
    assert found["alone-audio"][1]["text"]["encoder"] is None
    both = config | {"train": config["train"] | {"unimodal_weight": 0.5}}
    assert list(control_configs(both, ["text", "audio"])) == ["alone-text", "alone-audio", "unbalanced"]
    assert found["multi-loss"][1]["train"] == config["train"] | {"unimodal_weight": 1.0}
    assert control_configs(both, ["text", "audio"])["alone-text"][1]["train"]["unimodal_weight"] == 0.0
    assert list(control_configs(config | {"balancer": []}, ["text"])) == []


def test_a_run_that_has_not_finished_has_no_controls(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.yaml not found. Controls are for a finished run"):
        run_controls(tmp_path, Trains())

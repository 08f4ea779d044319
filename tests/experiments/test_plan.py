from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.data import synthetic
from equipoise.experiments import cell as cells_module
from equipoise.experiments.cell import Cell, code_version, data_checksum, make_cell
from equipoise.experiments.clock import Clock, spoken
from equipoise.experiments.grid import make_grid
from equipoise.experiments.plan import plan
from equipoise.experiments.trial import estimate_seconds
from equipoise.training.config import make_config


def planned(data: Path, **values: Any) -> list[Cell]:
    small = {"model.hidden": 4, "model.encoder": "mean"}
    start: dict[str, Any] = {"datasets": {"small": str(data)}, "models": {"LateFusion": small}}
    return plan(make_grid({**start, **values}))


def test_methods_stand_beside_their_controls_on_every_seed(data: Path) -> None:
    cells = planned(data, methods=["ags", "agm"], seeds=[3, 5])
    names = ["ags", "agm", "text alone", "audio alone", "vision alone", "plain", "multi-loss"]
    assert [(cell.seed, cell.method) for cell in cells] == [(seed, name) for seed in (3, 5) for name in names]
    assert len({cell.id for cell in cells}) == 14
    of = {cell.method: cell for cell in cells}
    assert [of[name].role for name in names] == ["method", "method", "alone", "alone", "alone", "plain", "multi_loss"]
    assert of["text alone"].config.modalities == ["text"]
    assert of["plain"].config == of["ags"].config.model_copy(update={"balancer": []})
    assert of["multi-loss"].config.train.unimodal_weight == 1
    assert {cell.config.threads for cell in cells} == {1}
    assert of["ags"].against == of["agm"].against == ("plain", "multi-loss")
    assert of["multi-loss"].against == ("plain",)
    assert of["plain"].against == of["text alone"].against == ()


def test_a_control_that_is_asked_for_stands_there_once(data: Path) -> None:
    methods = {"nothing": {"balancer": "plain"}, "sum": {"balancer": "plain", "train.unimodal_weight": 1}, "ags": None}
    cells = planned(data, methods=methods, seeds=[0])
    assert [cell.method for cell in cells] == ["nothing", "sum", "ags", "text alone", "audio alone", "vision alone"]
    assert [cell.role for cell in cells[:3]] == ["plain", "multi_loss", "method"]
    assert cells[2].against == ("nothing", "sum")
    bare = planned(data, methods=methods, seeds=[0], controls=False)
    assert [cell.against for cell in bare] == [cell.against for cell in cells[:3]]


def test_a_method_that_trains_otherwise_gets_controls_of_its_own(data: Path) -> None:
    sgd = {"train.optimizer": "sgd"}
    methods = {"ags": None, "sgd": {"balancer": "ags", **sgd}, "other": {"balancer": "agm", **sgd}}
    cells = planned(data, methods=methods, seeds=[0])
    against = {cell.method: cell.against for cell in cells}
    assert against["ags"] == ("plain", "multi-loss")
    assert against["sgd"] == against["other"] == ("plain (sgd)", "multi-loss (sgd)")
    assert against["multi-loss (sgd)"] == ("plain (sgd)",)
    of = {cell.method: cell.config for cell in cells}
    assert of["plain"].train.optimizer == "adamw"
    assert of["plain (sgd)"].train.optimizer == "sgd"
    assert of["text alone (sgd)"].train.optimizer == "sgd"
    assert len(of) == len(cells) == 13


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"base": {"train.epoch": 3}}, "small, LateFusion, plain: Unknown config key `train.epoch`. Did you mean "),
        (
            {"methods": {"ags": {"balancer.alph": 3}}},
            "small, LateFusion, ags: Unknown config key `balancer.alph`. ",
        ),
        (
            {"methods": ["ags"], "base": {"modalities": ["text"]}},
            "small, LateFusion, ags: A balancer needs at least two modalities. Found text alone.",
        ),
        (
            {"base": {"modalities": ["txt"]}},
            "small, LateFusion, plain: Config key `modalities`: Unknown modality `txt`. Did you mean `text`?",
        ),
        ({"methods": ["umt"]}, "small, LateFusion, umt: umt learns from a model of each modality. Train them first"),
        (
            {"methods": {"ags": None, "again": {"balancer": "ags"}}},
            "small, LateFusion, again: the same training as the method `ags`. Leave one of them out.",
        ),
    ],
)
def test_contradictions_are_found_before_anything_runs(data: Path, values: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as error:
        planned(data, **values)
    assert str(error.value).startswith(line)


def test_an_id_is_of_settings_code_and_data_and_of_no_name_or_place(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(data, moved)
    synthetic(other, n=60, seed=4)

    def of(path: Path, **settings: Any) -> str:
        config = make_config({"data": str(path), **settings})
        return make_cell(config, dataset=path.name, model="m", method=str(settings)).id

    same = of(data)
    assert of(moved) == same
    assert len({same, of(other), of(data, seed=1), of(data, train={"lr": 0.5}), of(data, balancer="ags")}) == 5
    monkeypatch.setattr(cells_module, "code_version", lambda: "other")
    assert of(data) != same


def test_the_checksum_sees_a_changed_file(data: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(data, changed)
    manifest = changed / "manifest.json"
    digest = next(iter(json.loads(manifest.read_text())["files"].values()))
    manifest.write_text(manifest.read_text().replace(digest, "0" * 64))
    assert data_checksum(changed) != data_checksum(data)


def test_the_code_version_names_the_release() -> None:
    from equipoise import __version__

    release, _, digest = code_version().partition("+")
    assert release == __version__
    assert len(digest) == 12


def test_a_trial_finds_what_only_training_shows_and_foretells_its_time(data: Path) -> None:
    threads = torch.get_num_threads()
    (cell,) = planned(data, base={"train.select": "accuracy"}, seeds=[0], controls=False)
    with pytest.raises(ValueError, match=r"^small, LateFusion, plain: Parameter `select` should be one of mae"):
        estimate_seconds(cell)
    short, long = (
        estimate_seconds(planned(data, base={"train.epochs": epochs}, seeds=[0], controls=False)[0], 60.0)
        for epochs in (1, 1000)
    )
    assert long > 20 * short
    torch.set_num_threads(threads)


def test_the_time_to_go(data: Path) -> None:
    cells = planned(data, methods=["ags"], seeds=[0, 1], controls=False)
    cells += [replace(cell, method="agm") for cell in cells]
    clock = Clock(jobs=2)
    assert clock.remaining(cells) is None
    assert clock.guessed(cells) == 4
    clock.add(cells[0], 10.0)
    assert clock.remaining(cells[1:]) == 15.0  # ags 10; agm 2 × 10, guessed from ags; by two at once
    assert clock.guessed(cells[1:]) == 2
    clock.tried[cells[2].kind] = 40.0
    assert clock.remaining(cells[1:]) == 45.0  # 10 + 2 × 40, by two at once
    assert clock.remaining(cells[2:3]) == 40.0  # one cell is no faster for a second process
    assert clock.remaining(cells[1:3], {cells[1].id: 4.0}) == 40.0
    assert clock.remaining([cells[1]], {cells[1].id: 20.0}) == 5.0  # overdue: a quarter of its time again
    assert clock.guessed(cells) == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (3540, "59 min"), (3599, "1 h 0 min"), (90000, "25 h 0 min")]
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert spoken(seconds) == text

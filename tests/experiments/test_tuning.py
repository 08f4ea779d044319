from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from tests.experiments.landscape import SMALL, WIDE, scored, studies, tuned

from equipoise.data import load
from equipoise.experiments.cell import Cell
from equipoise.experiments.collect import collect_rows
from equipoise.experiments.grid import make_grid
from equipoise.experiments.plan import plan, plan_studies
from equipoise.experiments.search import Range, combinations, read_search
from equipoise.experiments.store import Store
from equipoise.experiments.study import Study, Trial
from equipoise.experiments.train import train_cells
from equipoise.experiments.tuner import Tuner
from equipoise.experiments.tuning import make_tuning
from equipoise.training.config import make_config
from equipoise.training.run import run


def test_every_method_and_control_gets_the_same_number_of_trials_and_rows_say_it(data: Path, tmp_path: Path) -> None:
    methods = {"ags": {"search": {"balancer.alpha": [0.1, 0.5]}}}
    found = studies(data, methods=methods, seeds=[0], base={"modalities": ["text", "audio"]})
    store, train = Store(tmp_path / "store"), train_cells(Store(tmp_path / "store"))
    tuner = Tuner(found, store)
    trials: list[Cell] = []
    while batch := tuner.advance():
        trials += batch.values()
        for cell in batch.values():
            store.put(cell.id, {"result": dict(train(cell))})
    names = ["ags", "text alone", "audio alone", "plain", "multi-loss"]
    assert Counter(cell.method for cell in trials) == dict.fromkeys(names, 3)
    assert len({cell.id for cell in trials}) == 15
    finals = tuner.finals()
    assert [cell.method for cell in finals] == names
    for cell in (finals[0], finals[3]):
        store.put(cell.id, {"result": dict(train(cell))})
    assert [(row.method, row.trials) for row in collect_rows(finals, store)] == [("ags", 3), ("plain", 3)]
    of = {study.cell.method: study for study in found}
    assert {name: sorted(study.search) for name, study in of.items()} == {
        "ags": ["balancer.alpha"],
        "multi-loss": ["train.lr", "train.unimodal_weight"],
        **{name: ["train.lr"] for name in ("text alone", "audio alone", "plain")},
    }
    plain = [row for row in tuner.record() if row["method"] == "plain"]
    chosen = min(plain, key=lambda row: row["value"])
    assert [row["chosen"] for row in plain] == [row is chosen for row in plain]
    assert finals[3].config.train.lr == chosen["settings"]["train.lr"]
    with sqlite3.connect(tmp_path / "store" / "tuning.db") as database:
        assert database.execute("select count(*) from trials where state = 'COMPLETE'").fetchone() == (15,)
        assert database.execute("select count(*) from studies").fetchone() == (5,)


def test_a_trial_reads_no_test_split(data: Path, tmp_path: Path) -> None:
    train = {"epochs": 2, "direction_every": 0}
    config = make_config({"data": str(data), "model": {"name": "LateFusion", "hidden": 4}, "train": train})
    poisoned = tmp_path / "poisoned"
    shutil.copytree(data, poisoned)
    test = np.array([line.endswith(",test") for line in (poisoned / "samples.csv").read_text().splitlines()[1:]])
    assert test.sum() == 12
    labels = np.load(poisoned / "labels.npy")
    labels[test] *= -1
    np.save(poisoned / "labels.npy", labels)
    for name in load(poisoned).modalities:
        values, offsets = np.load(poisoned / f"{name}.npy"), np.load(poisoned / f"{name}.offsets.npy")
        for i in np.flatnonzero(test):
            values[offsets[i] : offsets[i + 1]] *= -3
        np.save(poisoned / f"{name}.npy", values)
    without = tmp_path / "without"
    shutil.copytree(data, without)
    for file in ("samples.csv", "manifest.json"):
        text = (without / file).read_text()
        (without / file).write_text(text.replace(",test\n", ",held\n").replace('"test"', '"held"'))
    assert "test" not in load(without).splits

    def valid(path: Path) -> Any:
        found = run(config.model_copy(update={"data": str(path)}), tmp_path / f"{path.name} run", split="valid")
        return {**found, "seconds_per_epoch": 0}

    there = valid(data)
    assert valid(poisoned) == valid(without) == there
    out = tmp_path / "small run"
    assert not (out / "test.json").exists()
    assert not (out / "predictions.csv").exists()
    full = run(config, tmp_path / "full")
    assert full["metrics"] != run(config.model_copy(update={"data": str(poisoned)}), tmp_path / "read")["metrics"]
    rows = (tmp_path / "full" / "metrics.csv").read_text().splitlines()
    chosen = dict(zip(rows[0].split(","), rows[full["epoch"]].split(","), strict=True))
    assert float(chosen["valid/mae"]) == pytest.approx(there["metrics"]["mae"], rel=1e-6)
    with pytest.raises(ValueError, match="reads no test split"):
        run(config.model_copy(update={"protocol": "paper"}), tmp_path / "paper", split="valid")


def test_trials_train_on_seeds_that_the_comparison_does_not_use_and_never_on_test(data: Path) -> None:
    (study,) = studies(data, controls=False, seeds=[0, 1, 3], tuning={"trials": 4, "epochs": 7}, base={"search": WIDE})
    cells = [study.trial_cell(trial) for trial in study.ahead([])]
    assert {cell.seed for cell in cells} == {2}
    assert {cell.split for cell in cells} == {"valid"}
    assert {cell.config.train.epochs for cell in cells} == {7}
    assert {cell.config.train.epochs for cell in study.final_cells({})} == {1}
    assert cells[0].config.train.lr == 1e-3  # the config as it stands comes first
    assert all(1e-5 <= cell.config.train.lr <= 1 for cell in cells)


def test_few_choices_are_all_tried_and_then_again_on_other_seeds(data: Path) -> None:
    search = {"train.lr": [0.1, 0.01], "train.clip": [1.0, None]}
    (study,) = studies(data, controls=False, seeds=[0], tuning=6, base={"search": search})
    assert study.sampler == "grid"
    tried = [(trial.settings["train.lr"], trial.settings["train.clip"], trial.seed) for trial in study.ahead([])]
    assert tried == [(0.1, 1.0, 1), (0.1, None, 1), (0.01, 1.0, 1), (0.01, None, 1), (0.1, 1.0, 2), (0.1, None, 2)]
    values = [0.5, 0.2, 0.3, None, 0.1, 0.6]
    told = [
        Trial(each.number, each.settings, each.seed, value) for each, value in zip(study.ahead([]), values, strict=True)
    ]
    assert study.best(told) == {"train.lr": 0.1, "train.clip": 1.0}  # means 0.3, 0.4, 0.3: the first of the best
    told[4] = Trial(4, told[4].settings, 2, 0.2)
    assert study.best(told) == {"train.lr": 0.01, "train.clip": 1.0} or study.best(told) == told[0].settings
    assert study.best([told[3]]) is None


def test_what_is_tried_depends_on_no_order_and_no_number_at_once(data: Path, tmp_path: Path) -> None:
    def tried(name: str, **how: Any) -> list[dict[str, Any]]:
        found = studies(data, methods=["plain", "ags"], base={"search": WIDE}, tuning=12, controls=False)
        return tuned(found, Store(tmp_path / name), **how).record()

    first = tried("all")
    assert len(first) == 24
    assert tried("one", at_once=1, keep=False) == first
    assert tried("three", at_once=3, last_first=True, keep=False) == first
    (other,) = studies(data, base={"search": WIDE}, tuning={"trials": 3, "seed": 5}, controls=False)
    assert other.ahead([])[1].settings != first[1]["settings"]


def test_the_search_nears_the_best_and_more_trials_go_on_where_fewer_ended(data: Path, tmp_path: Path) -> None:
    def found(trials: int) -> list[Study]:
        return studies(data, controls=False, base={"search": WIDE}, tuning=trials)

    store = Store(tmp_path / "store")
    few = tuned(found(12), store).record()
    begun = store.ids()
    many = tuned(found(30), store)
    assert [row["settings"] for row in many.record()[:12]] == [row["settings"] for row in few]
    assert len(store.ids()) == 30
    assert begun < store.ids()
    values = [row["value"] for row in many.record()]
    assert min(values) < 0.02
    assert float(np.median(values[10:])) < float(np.median(values[:10])) / 2  # drawn where it was good before
    chosen = next(row["settings"]["train.lr"] for row in many.record() if row["chosen"])
    assert {cell.config.train.lr for cell in many.finals()} == {chosen}
    assert [cell.seed for cell in many.finals()] == [0, 1]


def test_killed_anywhere_it_goes_on_and_trains_nothing_twice(data: Path, tmp_path: Path) -> None:
    found = studies(data, methods=["plain", "ags"], base={"search": WIDE}, tuning=12, controls=False)
    store, log = Store(tmp_path / "store"), tmp_path / "log"

    def child(lives: int) -> None:
        tuner = Tuner(found, store)
        while batch := tuner.advance():
            for cell in batch.values():
                store.put(cell.id, {"result": scored(cell)})
                with log.open("a") as file:
                    file.write(f"{cell.id}\n")
                lives -= 1
                if not lives:
                    os.kill(os.getpid(), signal.SIGKILL)

    for lives in (1, 8, 12, 1, 99):
        process = os.fork()
        if process == 0:
            child(lives)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status) == (lives < 99)
    trained = log.read_text().split()
    assert len(trained) == len(set(trained)) == 24
    whole = tuned(found, Store(tmp_path / "whole"))
    assert Tuner(found, store).record() == whole.record()
    (tmp_path / "store" / "tuning.db").unlink()
    assert Tuner(found, store).record() == whole.record()  # the results alone are enough
    names = [f"{study.cell.kind} [{study.id}]" for study in found]
    kept = optuna.load_study(study_name=names[1], storage=f"sqlite:///{tmp_path / 'store' / 'tuning.db'}")
    assert kept.best_value == min(row["value"] for row in whole.record()[12:])
    assert kept.best_params == next(row["settings"] for row in whole.record()[12:] if row["chosen"])


def test_a_database_by_url_serves_a_store_that_lacks_the_trials(data: Path, tmp_path: Path) -> None:
    tuning = {"trials": 4, "storage": f"sqlite:///{tmp_path / 'shared.db'}"}
    found = studies(data, base={"search": WIDE}, tuning=tuning, controls=False)
    here = tuned(found, Store(tmp_path / "here")).record()
    there = Tuner(found, Store(tmp_path / "there"))
    assert there.advance() == {}
    assert there.record() == here
    assert not (tmp_path / "there" / "tuning.db").exists()
    wrong = studies(data, base={"search": WIDE}, tuning={**tuning, "storage": "sqlite:////nowhere/x.db"})
    with pytest.raises(ValueError, match=r"The database of trials, sqlite:////nowhere/x\.db, can't be opened"):
        Tuner(wrong, Store(tmp_path / "wrong"))


def test_failed_trials_count_and_a_method_without_any_result_is_told(data: Path, tmp_path: Path) -> None:
    found = studies(data, methods=["plain", "ags"], base={"search": WIDE}, tuning=3, controls=False)
    store = Store(tmp_path / "store")
    tuner = Tuner(found, store)
    for slot, cell in tuner.advance().items():
        if cell.method == "ags" or slot.endswith("-0"):
            store.put(cell.id, {"error": "no longer finite"}, failed=True)
        else:
            store.put(cell.id, {"result": scored(cell)})
    assert tuner.advance() == {}
    reason = "none of its 3 trials has a figure; the first: no longer finite"
    assert tuner.errors() == {"small, LateFusion, ags": reason}
    assert {cell.method for cell in tuner.finals()} == {"plain"}
    assert tuner.record()[0]["value"] is None
    assert Tuner(found, store).advance() == {}
    again = Tuner(found, store, retry=True)
    assert sorted(slot.rpartition("-")[2] for slot in again.advance()) == ["0", "0", "1", "2"]


def test_stand_ins_count_what_will_be_trained(data: Path, tmp_path: Path) -> None:
    found = studies(data, methods=["plain", "ags"], base={"search": WIDE}, tuning=12, controls=False)
    assert len(Tuner(found, None).cells()) == len(Tuner(found, None).waiting()) == 2 * (12 + 2)
    store = Store(tmp_path / "store")
    tuner = Tuner(found, store)
    batch = tuner.advance()
    assert len(batch) == 20  # ten of each are drawn at random
    slots = {cell.id for cell in tuner.waiting()}
    assert batch.keys() < slots
    for cell in list(batch.values())[3:]:
        store.put(cell.id, {"result": scored(cell)})
    tuner.advance()
    assert len(tuner.waiting()) == 28 - 17
    assert len(tuner.cells()) == 28
    done = tuned(found, store)
    assert [cell.id for cell in done.waiting()] == [cell.id for cell in done.finals()]


def test_controls_search_what_is_theirs_and_one_that_is_named_as_it_says(data: Path) -> None:
    search = {"train.lr": [0.1, 0.2], "balancer.alpha": [0.5, 1.0]}
    found = {study.cell.method: study for study in studies(data, methods=["ags"], base={"search": search})}
    assert found["ags"].search == {"train.lr": (0.1, 0.2), "balancer.alpha": (0.5, 1.0)}
    assert found["plain"].search == found["audio alone"].search == {"train.lr": (0.1, 0.2)}
    assert found["multi-loss"].search == {"train.lr": (0.1, 0.2), "train.unimodal_weight": Range(0.03, 3.0, log=True)}
    named = studies(data, methods={"plain": {"search": {"train.lr": [0.3, 0.4]}}, "ags": {"search": search}})
    of = {study.cell.method: study for study in named}
    assert of["plain"].search == {"train.lr": (0.3, 0.4)}
    assert of["ags"].cell.against == ("plain", "multi-loss")
    assert not any("plain (" in name for name in of)
    none = studies(data, controls=False, methods={"plain": {"search": {"train.lr": None}}}, base={"search": search})
    assert none[0].search == {"train.lr": Range(1e-4, 1e-2, log=True)}


def test_an_untuned_grid_is_as_it_was(data: Path) -> None:
    grid = make_grid({"datasets": {"small": str(data)}, "models": SMALL, "methods": ["ags"], "seeds": [0]})
    assert {cell.split for cell in plan(grid)} == {"test"}
    assert {cell.trials for cell in plan(grid)} == {None}
    with pytest.raises(ValueError, match="Grid key `tuning` should say how many trials"):
        plan_studies(grid)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"tuning": None, "base": {"search": WIDE}}, "Grid key `base.search` needs `tuning: {trials: N}`"),
        ({"tuning": {"trial": 3}}, "Unknown grid key `tuning.trial`. Did you mean `tuning.trials`?"),
        ({"tuning": {"seed": 3}}, "Grid key `tuning.trials` should be a whole number, 1 or more. Found None."),
        ({"tuning": 0}, "Grid key `tuning.trials` should be a whole number, 1 or more. Found 0."),
        ({"tuning": {"trials": 2, "sampler": "tpr"}}, "Grid key `tuning.sampler` should be one of tpe, random, grid."),
        (
            {"tuning": {"trials": 2, "metric": "maee"}},
            "small, LateFusion, plain: Grid key `tuning.metric`: Unknown metric `maee`. Did you mean `mae`?",
        ),
        (
            {"base": {"search": {"train.lrr": [1, 2]}}},
            "small, LateFusion, plain: Unknown config key `train.lrr`. Did you mean `train.lr`?",
        ),
        (
            {"methods": {"ags": {"search": {"balancer.alpa": [1, 2]}}}},
            "small, LateFusion, ags: Unknown config key `balancer.alpa`. Did you mean `balancer.alpha`?",
        ),
        (
            {"base": {"search": {"train.lr": {"low": -1, "high": 1}}}},
            "small, LateFusion, plain: Config key `train.lr`: input should be greater than 0.",
        ),
        ({"base": {"search": {"seed": [1, 2]}}}, "Grid key `base.search`: `seed` can't be searched."),
        ({"base": {"search": {"train.lr": 3}}}, "Grid key `base.search.train.lr` should be a list of choices, or"),
        ({"base": {"search": {"train.lr": [1, 1]}}}, "Grid key `base.search.train.lr` should hold distinct words or"),
        (
            {"base": {"search": {"train.lr": {"low": 0, "high": 1, "log": True}}}},
            "Grid key `base.search.train.lr` should have numbers `low` < `high`, above 0 if `log` is true.",
        ),
        (
            {"base": {"search": {"train.lr": {"low": 1, "hi": 2}}}},
            "Grid key `base.search.train.lr`: Unknown key `hi`. Did you mean `high`?",
        ),
    ],
)
def test_bad_searches_are_one_line_before_anything_runs(data: Path, values: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as error:
        studies(data, **values)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_a_grid_of_ranges_is_refused(data: Path) -> None:
    (study,) = studies(data, base={"search": WIDE}, tuning={"trials": 2, "sampler": "grid"}, controls=False)
    with pytest.raises(ValueError, match=r"`tuning\.sampler = 'grid'` needs lists of choices"):
        study.ahead([])


def test_spaces_are_read() -> None:
    read = read_search("search", {"a": [1, None], "b": {"low": "1e-4", "high": 1, "log": True}, "c": None})
    assert read == {"a": (1, None), "b": Range(1e-4, 1, log=True), "c": None}
    assert read_search("search", read) == read
    assert combinations({"a": (1, 2), "b": ("x", "y")}) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}
    ]  # fmt: skip
    assert combinations({"a": (1, 2), "b": Range(0, 1)}) is None
    assert make_tuning(7) == make_tuning({"trials": 7})

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from equipoise.experiments.figures import Figure, _class_f1, gather
from equipoise.experiments.reproduce import Job, find_data, guide, plan, tiny_data, waves
from equipoise.experiments.reproduction import Reproduction, load
from equipoise.experiments.store import Store
from equipoise.training.run import run

pytestmark = pytest.mark.filterwarnings("ignore:Metric `corr` is NaN")  # a handful of samples


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reproduction, list[Job], list[Figure]]:
    """AGM's late fusion on data of AVLetters' shape, with its two concepts."""
    out = tmp_path_factory.mktemp("reproduced")
    table = load("agm.table1-avletters")
    jobs = plan(table, tiny_data(table, out / "data"), Store(out), rows=["AGM (late"], tiny=True)
    for job in jobs:
        run(job.cell.config, job.path)
    return table, jobs, gather(table, jobs)


def test_a_row_brings_the_concepts_that_its_strengths_need(
    tiny: tuple[Reproduction, list[Job], list[Figure]],
) -> None:
    _, jobs, _ = tiny
    assert [job.row.label for job in jobs] == ["C_a (late fusion)", "C_v (late fusion)", "AGM (late fusion)"]
    assert [job.cell.config.modalities for job in jobs] == [["audio"], ["vision"], None]


def test_ours_are_the_figures_of_the_runs(tiny: tuple[Reproduction, list[Job], list[Figure]]) -> None:
    _, jobs, figures = tiny
    found = {(each.row, each.column): each for each in figures}
    for job, column in zip(jobs, ("Acc_a", "Acc_v", "Acc"), strict=True):
        rows = list(csv.DictReader((job.path / "predictions.csv").read_text().splitlines()))
        share = np.mean([row["target"] == row["prediction"] for row in rows])
        assert list(found[job.row.label, column].honest) == pytest.approx([100 * share])
    shown = {key for key, each in found.items() if each.honest}
    assert shown == {("C_a (late fusion)", "Acc_a"), ("C_v (late fusion)", "Acc_v")} | {
        ("AGM (late fusion)", column) for column in ("Acc", "Acc_a", "Acc_v", "d_a", "d_v")
    }
    assert all(each.difference is None and each.published is None for each in figures)  # no paper has them


def test_the_best_on_test_is_never_below_the_honest_figure(
    tiny: tuple[Reproduction, list[Job], list[Figure]],
) -> None:
    best = {(each.row, each.column): each for each in tiny[2] if each.on_test}
    accuracy = best["AGM (late fusion)", "Acc"]
    assert accuracy.on_test[0] >= accuracy.honest[0]
    assert not any(column.startswith("d_") for _, column in best)  # measured on the chosen epoch alone


def test_tiny_runs_are_of_the_preset_but_short_and_marked(
    tiny: tuple[Reproduction, list[Job], list[Figure]],
) -> None:
    config = tiny[1][-1].cell.config
    assert (config.train.epochs, config.model.arguments["hidden"], config.balancer[0].name) == (1, 96, "agm")
    report = json.loads((tiny[1][-1].path / "test.json").read_text())
    assert report["dataset"]["synthetic"] is True
    assert "test_selected" in report


def test_a_difference_is_ours_minus_the_papers() -> None:
    figure = Figure("mosi", "all", "MAE", "mae", 0.7, (0.8, 0.9), (0.75, 0.85))
    assert figure.difference == pytest.approx(0.15)
    assert figure.to_dict()["honest"] == {"mean": pytest.approx(0.85), "sd": pytest.approx(0.0707107), "seeds": 2}
    assert Figure("mosi", "all", "MAE", "mae", None, (0.8,)).difference is None
    assert Figure("mosi", "all", "MAE", "mae", 0.7, (0.8,), comparable=False).difference is None
    assert Figure("mosi", "all", "MAE", "mae", 0.7).to_dict()["honest"] is None


def test_teachers_are_runs_of_the_same_seed_that_come_first(tmp_path: Path) -> None:
    table = load("ags-smoe.fig6")
    jobs = plan(table, tiny_data(table, tmp_path / "d", ["mosi"]), Store(tmp_path), seeds=[1, 2], rows=["UMT"])
    paths = {(job.row.label, job.cell.seed): job.path for job in jobs}
    assert [{cell.method for cell in wave} for wave in waves(jobs)] == [
        {"text alone", "audio alone", "vision alone"},
        {"UMT"},
    ]
    for job in jobs:
        if job.row.label == "UMT":
            teachers = job.cell.config.balancer[0].teachers
            assert teachers == {m: str(paths[f"{m} alone", job.cell.seed]) for m in ("text", "audio", "vision")}


def test_equal_settings_are_one_run_whatever_table_they_stand_in(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cells = {}
    for name, row in (("ags-smoe.table3", "AGS-SMoE"), ("ags-smoe.table4", "alpha = 0.01")):
        table = load(name)
        data = tiny_data(table, tmp_path / "data", ["mosi"])
        (job,) = plan(table, data, store, rows=[row], seeds=[0])
        cells[name] = job.cell.id
        assert len(waves([job, job])[0]) == 1
    assert len(set(cells.values())) == 1


def test_overrides_go_over_every_run(tmp_path: Path) -> None:
    table = load("ags-smoe.table4")
    data = tiny_data(table, tmp_path / "data", ["mosi"])
    jobs = plan(table, data, Store(tmp_path), seeds=[0], overrides={"train.epochs": 3, "balancer.1.alpha": 0.5})
    found = {(job.cell.config.train.epochs, job.cell.config.balancer[1].arguments["alpha"]) for job in jobs}
    assert (len(jobs), found) == (5, {(3, 0.5)})
    with pytest.raises(ValueError, match=r"ags-smoe.table4 has no row that begins with `gamma`. Rows: alpha = 0.001"):
        plan(table, data, Store(tmp_path), rows=["gamma"])


def test_a_row_without_text_is_given_no_text_encoder(tmp_path: Path) -> None:
    table = load("glomo.table4")
    data = tiny_data(table, tmp_path / "data", ["mosi"])
    jobs = plan(table, data, Store(tmp_path), rows=["V+A (", "V+T"], overrides={"text.encoder": "minilm"})
    assert [(job.row.name, job.cell.config.text.encoder) for job in jobs] == [("V+A", None), ("V+T", "minilm")]


def test_data_are_found_under_their_names_or_named_where_missing(tmp_path: Path) -> None:
    table = load("ags-smoe.table3")
    with pytest.raises(FileNotFoundError) as error:
        find_data(table, tmp_path)
    assert str(error.value) == (
        f"ags-smoe.table3 found no dataset at {tmp_path / 'mosi'} or {tmp_path / 'mosei'}. "
        "What to get: `equipoise reproduce ags-smoe.table3` without `--data`."
    )
    tiny_data(table, tmp_path, ["mosi"])
    assert find_data(table, tmp_path) == {"mosi": str(tmp_path / "mosi")}
    assert find_data(table, tmp_path / "mosi", ["mosi"]) == {"mosi": str(tmp_path / "mosi")}
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*mosei\."):
        find_data(table, tmp_path, ["mosi", "mosei"])
    with pytest.raises(ValueError, match=r"ags-smoe.table3 has no dataset `pom`. Valid: mosi, mosei"):
        find_data(table, tmp_path, ["pom"])
    assert "equipoise data import mosi.pkl --to DIR/mosi" in guide(table)[0]


def test_f1_of_a_class_is_scikit_learns(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    target, said = random.integers(0, 3, 60), random.integers(0, 3, 60)
    lines = ["id,target,prediction,probability/Sad,probability/fear,probability/happy"]
    lines += [f"{i},{t},{p},0,0,0" for i, (t, p) in enumerate(zip(target, said, strict=True))]
    (tmp_path / "predictions.csv").write_text("\n".join(lines))
    for number, name in enumerate(("sad", "fear", "happy")):
        expected = f1_score(target == number, said == number)
        assert _class_f1(tmp_path / "predictions.csv", name) == pytest.approx(expected)
    assert _class_f1(tmp_path / "predictions.csv", "anger") is None

from __future__ import annotations

import math
from pathlib import Path

import pytest

from equipoise.report.runs import read_columns, read_run, read_runs


def write_run(folder: Path, loss: float = 1.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(f"epoch,train_loss,norm/text,norm/audio\n0,{loss},2,3\n1,0.5,,1\n")
    (folder / "steps.csv").write_text("step,norm/text,norm/audio\n0,2.5,1\n")
    (folder / "test.json").write_text('{"mae": 0.5}')
    return folder


def test_read_run_gives_columns_and_test_figures(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert run.epochs["train_loss"] == [1.0, 0.5]
    assert run.epochs["norm/text"][0] == 2.0
    assert math.isnan(run.epochs["norm/text"][1])
    assert run.steps["norm/text"] == [2.5]
    assert run.modalities == ("text", "audio")
    assert run.test == {"mae": 0.5}


def test_a_running_training_has_no_test_figures_yet(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "test.json").unlink()
    (folder / "steps.csv").unlink()
    assert read_run(folder).test is None
    assert read_run(folder).steps == {}


def test_seeds_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for seed in (10, 2, 0):
        write_run(tmp_path / f"seed-{seed}", loss=seed)
    (tmp_path / "plots").mkdir()
    assert [run.epochs["train_loss"][0] for run in read_runs(tmp_path)] == [0, 2, 10]


def test_one_run_directory_is_one_run(tmp_path: Path) -> None:
    assert [run.path for run in read_runs(write_run(tmp_path / "run"))] == [tmp_path / "run"]


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_run_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Not a run directory: .* holds no `metrics.csv`"):
        read_runs(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1\n", "line 2: expected 2 fields. Found 1"), ("a,b\n1,2\n1,x\n", "line 3: column `b` should hold numbers")],
)
def test_broken_csv_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_columns(tmp_path / "m.csv")


def test_empty_csv_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("")
    assert read_columns(tmp_path / "m.csv") == {}

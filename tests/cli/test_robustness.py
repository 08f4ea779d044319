from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from equipoise.cli import measure
from equipoise.cli.main import main
from equipoise.data import synthetic

FEW = ("--drop", "0", "0.5", "1", "--frames", "0.5", "--noise", "1", "--draws", "2")


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["robustness", *arguments, *FEW, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture(scope="module")
def runs(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the two seeds, for what is kept beside them."""
    return Path(shutil.copytree(small_runs, tmp_path_factory.mktemp("robust") / "two"))


def test_one_command_gives_table_points_and_picture_and_the_second_call_measures_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(capsys, str(runs))
    out = runs / "robustness"
    assert found["plots"] == [str(out / "robustness.svg"), str(out / "robustness.png")]
    assert all(Path(path).stat().st_size > 10_000 for path in found["plots"])
    with (out / "robustness.csv").open() as file:
        points = list(csv.DictReader(file))
    assert len(points) == 7 + 4 * 3 + 4 * 2 + 4 * 2 == len(found["points"]["rows"])
    assert found["metric"] == "mae"

    tests = [json.loads((runs / f"seed-{seed}" / "test.json").read_text())["metrics"]["mae"] for seed in (0, 1)]
    plain = {"mean": pytest.approx(sum(tests) / 2, rel=1e-12), "sd": pytest.approx(abs(tests[0] - tests[1]) / 2**0.5)}
    assert found["table"]["rows"][0] == {"": "nothing missing", "level": "", "two": {**plain, "seeds": 2}}

    def forbidden(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(measure, "_rows", forbidden)
    assert measured(capsys, str(runs)) == found
    kept = sorted((runs / "seed-0" / "robustness").iterdir())
    assert len(kept) == 1
    kept[0].write_text("{}")
    with pytest.raises(AssertionError, match="measured again"):
        main(["robustness", str(runs), *FEW])


def test_rate_one_is_evaluate_without(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = str(runs / "seed-1")
    assert main(["evaluate", seed, "--drop", "text", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["results"][0]["metrics"]["corr"]
    found = measured(capsys, seed, "--metric", "corr", "--out", str(runs / "elsewhere"))
    points = [
        row for row in found["points"]["rows"] if (row["kind"], row["of"], row["level"]) == ("modalities", "text", 1.0)
    ]
    assert [row["corr"]["mean"] for row in points] == [pytest.approx(expected, rel=1e-12)]
    assert (runs / "elsewhere" / "robustness.png").is_file()


def test_other_settings_weights_or_data_are_measured_anew(
    runs: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "one"
    shutil.copytree(runs / "seed-0", run)
    measured(capsys, str(run))
    kept = run / "robustness"
    before = len(list(kept.glob("rows-*.json")))
    measured(capsys, str(run), "--split", "valid")
    synthetic(tmp_path / "other", n=60, seed=8)
    measured(capsys, str(run), "--data", str(tmp_path / "other"))
    shutil.copytree(small_data, tmp_path / "moved")
    measured(capsys, str(run), "--data", str(tmp_path / "moved"))  # the same data elsewhere
    assert len(list(kept.glob("rows-*.json"))) == before + 2
    shutil.rmtree(run / "checkpoint")
    shutil.copytree(runs / "seed-1" / "checkpoint", run / "checkpoint")
    measured(capsys, str(run))
    assert len(list(kept.glob("rows-*.json"))) == before + 3


def test_runs_side_by_side(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["robustness", str(runs), str(runs / "seed-1"), "--out", str(tmp_path), *FEW]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "mae on synthetic [synthetic data], test" in shown
    assert "two" in shown.splitlines()[2]
    assert "seed-1" in shown.splitlines()[2]
    assert "a run with one seed says nothing about training" in shown


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["RUN", "--drop", "1.5"], "Parameter `--drop` should hold rates from 0 to 1. Found 1.5."),
        (["RUN", "--frames", "nan"], "Parameter `--frames` should hold rates from 0 to 1. Found nan."),
        (["RUN", "--noise", "-1"], "Parameter `--noise` should hold deviations of at least 0. Found -1."),
        (["RUN", "--draws", "0"], "Parameter `--draws` should be 1 or more. Found 0."),
        (["RUN", "RUN"], "Parameter `RUN_DIR` should name each run once."),
        (["RUN", "--split", "dev"], "The dataset has no split 'dev'. It has: train, valid, test."),
        (
            ["RUN", "--drop", "often"],
            "argument --drop: invalid float value: 'often'. See `equipoise robustness --help`.",
        ),
        (["nowhere"], "nowhere is no run directory: config.yaml not found."),
        (["RUN", "nowhere"], "nowhere is no run directory: config.yaml not found."),
        ([], "the following arguments are required: RUN_DIR."),
    ],
)
def test_bad_input_is_one_line(runs: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robustness", *(str(runs) if word == "RUN" else word for word in arguments)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"equipoise: {line}")
    assert err.count("\n") == 1


def test_an_unknown_metric_names_the_nearest(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(capsys, str(runs))
    assert main(["robustness", str(runs), *FEW, "--metric", "cor"]) == 2
    assert "unknown metric `cor`. Did you mean `corr`?" in capsys.readouterr().err


def test_runs_on_other_data_are_not_compared(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic(tmp_path / "data", n=60, seed=9)
    small = ["--model.hidden", "4", "--model.encoder", "mean", "--train.epochs", "1"]
    assert main(["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *small]) == 0
    capsys.readouterr()
    assert main(["robustness", str(runs), str(tmp_path / "run")]) == 2
    expected = f"Runs should be of one dataset to be compared. Found another in {tmp_path / 'run'}."
    assert capsys.readouterr().err == f"equipoise: {expected}\n"

from __future__ import annotations

import json
from pathlib import Path

import pytest

from equipoise.cli.evaluate import without
from equipoise.cli.main import main
from equipoise.data import synthetic


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main(["evaluate", *arguments, "--json"]) == 0
    results: list[dict[str, object]] = json.loads(capsys.readouterr().out)["results"]
    return results


def test_the_test_split_scores_as_it_did_in_training(small_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = evaluated(capsys, str(small_runs / "seed-1"))
    stored = json.loads((small_runs / "seed-1" / "test.json").read_text())
    for key in ("metrics", "interval", "modalities", "loss", "own", "seed", "model", "balancer", "dataset"):
        assert found[key] == stored[key]


def test_several_seeds_are_scored_together(small_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [found["seed"] for found in evaluated(capsys, str(small_runs), "--split", "valid")] == [0, 1]
    assert main(["evaluate", str(small_runs), "--split", "valid"]) == 0
    out = capsys.readouterr().out
    assert "\nvalid " in out
    assert "[synthetic data]" in out
    assert "over seeds 0, 1" in out


def test_dropping_modalities_leaves_the_own_score_of_the_last(
    small_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(small_runs / "seed-0")
    (found,) = evaluated(capsys, run, "--drop", "audio", "vision")
    assert found["modalities_used"] == ["text"]
    assert found["modalities"].keys() == {"text"}  # type: ignore[attr-defined]
    (whole,) = evaluated(capsys, run)
    assert found["metrics"] != whole["metrics"]
    assert found["modalities"]["text"] == whole["modalities"]["text"]  # type: ignore[index]


def test_other_data_of_the_same_kind(small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic(tmp_path / "other", n=50, seed=9)
    (found,) = evaluated(capsys, str(small_runs / "seed-0"), "--data", str(tmp_path / "other"))
    assert found["dataset"]["path"] == str(tmp_path / "other")  # type: ignore[index]


def test_a_dataset_that_was_moved_is_named_where_it_is_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic(tmp_path / "old", n=30, dims={"text": 4})
    run = str(tmp_path / "run")
    settings = ["--model.hidden", "4", "--model.encoder", "mean", "--train.epochs", "1"]
    assert main(["train", "--data", str(tmp_path / "old"), "--out", run, *settings]) == 0
    capsys.readouterr()
    (before,) = evaluated(capsys, run)
    (tmp_path / "old").rename(tmp_path / "new")
    assert main(["evaluate", run]) == 2
    line = (
        f"equipoise: The dataset of {run} is not at {tmp_path / 'old'}, where it was. Give its place now: `--data DIR`."
    )
    assert capsys.readouterr().err == f"{line}\n"
    (after,) = evaluated(capsys, run, "--data", str(tmp_path / "new"))
    assert (after["metrics"], after["interval"]) == (before["metrics"], before["interval"])
    synthetic(tmp_path / "other", n=30, dims={"text": 5})
    assert main(["evaluate", run, "--data", str(tmp_path / "other")]) == 2
    assert "other should have the modalities, widths and labels that the model of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"dims": {"text": 8}}, "Modality text should be 32 wide, as in training. Found 8."),
        ({"modalities": ("text", "audio")}, "should have the modality vision. It has: text, audio."),
        ({"task": "classification"}, "labels for regression with 1 outputs, as in training. Found classification"),
    ],
)
def test_data_that_do_not_fit_are_one_line(
    small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, object], part: str
) -> None:
    synthetic(tmp_path / "other", n=20, **settings)  # type: ignore[arg-type]
    assert main(["evaluate", str(small_runs / "seed-0"), "--data", str(tmp_path / "other")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert part in err


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--drop", "adio"], "unknown modality `adio`. Did you mean `audio`? The run has: text, audio, vision."),
        (["--drop", "text", "audio", "vision"], "should leave at least one modality"),
        (["--split", "tset"], "has no split 'tset'"),
    ],
)
def test_wrong_flags_are_one_line(
    small_runs: Path, capsys: pytest.CaptureFixture[str], flags: list[str], part: str
) -> None:
    assert main(["evaluate", str(small_runs / "seed-0"), *flags]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert part in err


def test_no_run_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert "is no run directory" in capsys.readouterr().err


def test_without_keeps_the_order() -> None:
    assert without(("text", "audio", "vision"), ["audio"]) == ("text", "vision")
    assert without(("text",), []) == ("text",)

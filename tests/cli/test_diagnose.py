from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from equipoise.cli import measure
from equipoise.cli.main import main
from equipoise.diagnostics import auditing
from equipoise.training.kept_epochs import epoch_keeper
from equipoise.training.run import load_run


@pytest.fixture(scope="module")
def run_dir(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(small_runs / "seed-0", tmp_path_factory.mktemp("diagnose") / "run"))


def diagnosed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["diagnose", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_one_command_writes_a_report_and_the_second_computes_nothing(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["diagnose", str(run_dir)]) == 0
    shown = capsys.readouterr()
    out = run_dir / "diagnosis"
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [line[2:] for line in shown.out.splitlines() if line.startswith("- ")] == [
        each["sentence"] for each in content["verdict"]
    ]
    markdown = (out / "report.md").read_text(encoding="utf-8")
    assert all(each["sentence"] in markdown for each in content["verdict"])
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert content["about"]["samples"] == 12
    assert set(content["data"]["floors"]) == {"text", "audio", "vision", "text+audio+vision"}
    with (run_dir / "steps.csv").open() as file:
        steps = [row["epoch"] for row in csv.DictReader(file) if row["norm/text"]]
    assert steps == ["1", "2"]  # the first step of each epoch, and every tenth after it, of three
    assert content["training"]["stages"]["encoders"]["whole"]["steps"] == len(steps)
    test = json.loads((run_dir / "test.json").read_text())
    assert content["data"]["balance"]["test"]["samples"] == test.get("samples", 12)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    on_valid = diagnosed(capsys, str(run_dir), "--split", "valid", "--out", str(tmp_path / "valid"))
    for floor in on_valid["data"]["floors"].values():
        assert floor["samples"] == on_valid["data"]["balance"]["valid"]["samples"], "not silently on test"

    monkeypatch.setattr(auditing, "audit", forbidden)
    assert diagnosed(capsys, str(run_dir)) == content
    with pytest.raises(AssertionError, match="computed again"):
        main(["diagnose", str(run_dir), "--split", "valid"])
    kept = list(out.glob("audit-*.json"))
    assert len(kept) == 1
    kept[0].write_text("{", encoding="utf-8")
    with pytest.raises(AssertionError, match="computed again"):
        main(["diagnose", str(run_dir)])


def test_controls_are_trained_once_and_told(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_run(run_dir).model
    for epoch in (1, 2):  # as `train.keep_epochs` would
        epoch_keeper(run_dir)(epoch, model)
    found = diagnosed(capsys, str(run_dir), "--with-controls", "--maps")
    rows = {row["name"]: row for row in found["controls"]["rows"]}
    assert list(rows) == ["the run", "text alone", "audio alone", "vision alone", "unbalanced", "ensemble"]
    for name in ("text", "audio", "vision"):
        assert found["alone"][name]["value"] == pytest.approx(rows[f"{name} alone"]["score"]["value"], abs=1e-4)
        assert found["competition"][name]["samples"] == 12
        assert found["movement"][name]["joint"] > 0
        assert found["movement"][name]["alone"] > 0
    assert set(found["maps"]) == {"the run", "unbalanced"}
    assert found["maps"]["the run"]["panels"].keys() >= {"text", "text+audio", "fused"}
    assert [each["epoch"] for each in found["competition_by_epoch"]] == [1, 2]
    for each in found["competition_by_epoch"]:  # both hold the weights that the run ended with
        assert each["strength"] == found["competition"]
    before = {file: file.stat().st_mtime_ns for file in (run_dir / "controls").rglob("*") if file.is_file()}
    assert diagnosed(capsys, str(run_dir), "--with-controls", "--maps") == found
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_robustness_is_told_where_it_was_measured(
    run_dir: Path, small_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "robustness" not in diagnosed(capsys, str(run_dir))
    few = ("--drop", "0.5", "--frames", "0", "--noise", "0", "--draws", "1")
    assert main(["robustness", str(run_dir), *few, "--json"]) == 0
    capsys.readouterr()
    rows = diagnosed(capsys, str(run_dir))["robustness"]["rows"]
    assert {(row["kind"], row["of"], row["level"]) for row in rows} >= {("modalities", "all", 0.5)}
    assert "robustness" not in diagnosed(capsys, str(run_dir), "--split", "valid")
    for name, levels in {"RATES": [0.5], "FRAMES": [], "NOISE": [1.0], "DRAWS": 1}.items():
        monkeypatch.setattr(measure, name, levels)
    own = diagnosed(capsys, str(run_dir), "--robustness", "--out", str(tmp_path / "run"))
    assert {row["kind"] for row in own["robustness"]["rows"]} == {"subset", "modalities", "noise"}
    assert len(list((run_dir / measure.FOLDER).glob("rows-*.json"))) == 2, "kept where `equipoise robustness` looks"
    assert main(["export", str(run_dir), "--to", str(tmp_path / "saved")]) == 0
    capsys.readouterr()
    saved = (str(tmp_path / "saved"), "--data", str(small_data), "--out", str(tmp_path / "out"))
    assert diagnosed(capsys, *saved, "--robustness")["robustness"] == own["robustness"]
    assert diagnosed(capsys, *saved)["robustness"] == own["robustness"], "as measured before"
    assert sorted(path.name for path in (tmp_path / "saved").iterdir() if path.is_dir()) == []


def test_a_saved_model_is_diagnosed_on_data(
    run_dir: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved"
    assert main(["export", str(run_dir), "--to", str(saved)]) == 0
    capsys.readouterr()
    found = diagnosed(capsys, str(saved), "--data", str(small_data), "--out", str(tmp_path / "out"))
    own = diagnosed(capsys, str(run_dir))
    assert found["contributions"] == own["contributions"]
    assert (tmp_path / "out" / "report.html").is_file()
    assert not (saved / "diagnosis").exists(), "what is published stays as it is"
    assert main(["diagnose", str(saved)]) == 2
    assert "is a saved model, which knows of no dataset. Name one: `--data DIR`." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "nowhere is no run directory: config.yaml not found. Make one with `equipoise train`."),
        (["RUN", "--split", "dev"], "The dataset has no split 'dev'. It has: train, valid, test."),
        (["SEEDS"], "SEEDS holds 2 seeds. Name one of them: SEEDS/seed-0."),
        (
            ["RUN", "--with-controls", "--data", "DATA"],
            "`--with-controls` trains a run again on its own data: it takes a run directory, no `--data`.",
        ),
        ([], "the following arguments are required: RUN_DIR. See `equipoise diagnose --help`."),
        (["RUN", "--splt", "test"], "unknown flag `--splt`. Did you mean `--split`? See `equipoise diagnose --help`."),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    line: str,
    run_dir: Path,
    small_runs: Path,
    small_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"RUN": str(run_dir), "SEEDS": str(small_runs), "DATA": str(small_data)}
    assert main(["diagnose", *(places.get(word, word) for word in arguments)]) == 2
    expected = re.sub(r"^SEEDS|(?<= )SEEDS", str(small_runs).replace("\\", "\\\\"), line)
    assert capsys.readouterr().err == f"equipoise: {expected}\n"

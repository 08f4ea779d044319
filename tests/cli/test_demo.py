from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from pathlib import Path

import pytest

from equipoise.cli.main import main
from equipoise.report.tables import spread

RUNS = ("plain", "balanced", "multi-loss", "text-alone", "audio-alone", "vision-alone")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["demo", "--quick", "--seeds", "2", "--out", str(out), "--json"]) == 0
    (out / "printed.json").write_text(printed.getvalue())
    return out


def scores(demo: Path, name: str) -> list[dict[str, dict[str, float]]]:
    return [json.loads((demo / name / f"seed-{seed}" / "test.json").read_text()) for seed in (0, 1)]


def test_every_run_plot_and_table_is_there(demo: Path) -> None:
    for name in RUNS:
        assert (demo / name / "summary.json").is_file()
        assert (demo / name / "seed-1" / "predictions.csv").is_file()
    plots = {path.name for path in (demo / "plots").iterdir()}
    assert plots == {f"{n}.{s}" for n in ("loss", "norms", "own_accuracy", "own_correlation") for s in ("svg", "png")}
    assert "Synthetic data" in (demo / "table.md").read_text()


def test_the_runs_differ_in_what_they_are_called_and_in_nothing_else(demo: Path) -> None:
    import yaml

    configs = {name: yaml.safe_load((demo / name / "seed-0" / "config.yaml").read_text()) for name in RUNS}
    plain = configs["plain"]
    assert plain["balancer"] == []
    assert [balancer["name"] for balancer in configs["balanced"]["balancer"]] == ["ags"]
    assert {**configs["balanced"], "balancer": []} == plain
    multi = configs["multi-loss"]
    assert multi["train"]["unimodal_weight"] == 1.0
    assert {**multi, "train": {**multi["train"], "unimodal_weight": 0.0}} == plain
    assert {**configs["audio-alone"], "modalities": None} == plain


def test_the_table_holds_what_the_runs_measured(demo: Path) -> None:
    with (demo / "table.csv").open() as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    assert list(rows) == ["plain", "AGS", "multi-loss", "each alone", "best possible"]
    for name, folder in (("plain", "plain"), ("AGS", "balanced"), ("multi-loss", "multi-loss")):
        tests = scores(demo, folder)
        mae = spread([test["metrics"]["mae"] for test in tests])
        assert float(rows[name]["fused mae"]) == mae.mean
        assert float(rows[name]["fused mae_sd"]) == mae.sd
        own = spread([test["modalities"]["vision"]["corr"] for test in tests])  # type: ignore[index]
        assert float(rows[name]["vision corr"]) == own.mean
    alone = spread([test["metrics"]["corr"] for test in scores(demo, "audio-alone")])
    assert float(rows["each alone"]["audio corr"]) == alone.mean
    assert rows["each alone"]["fused mae"] == ""
    truth = json.loads((demo / "data" / "manifest.json").read_text())["extra"]["truth"]
    assert float(rows["best possible"]["text corr"]) == math.sqrt(truth["bayes_r2"]["text"])
    assert float(rows["best possible"]["fused corr"]) == math.sqrt(truth["bayes_r2"]["text+audio+vision"])


def test_json_says_the_same(demo: Path) -> None:
    printed = json.loads((demo / "printed.json").read_text())
    assert printed["results"]["multi-loss"] == scores(demo, "multi-loss")
    mae = spread([test["metrics"]["mae"] for test in scores(demo, "plain")])
    assert printed["table"]["rows"][0]["fused mae"] == {"mean": mae.mean, "sd": mae.sd, "seeds": 2}
    assert printed["truth"]["shares"]["alone_text"] == pytest.approx(0.35)
    assert "text alone 35 %, audio alone 15 %" in printed["table"]["notes"][0]
    assert any("did not help" in note or "lower" in note or "hurt" in note for note in printed["table"]["notes"])


def test_a_number_of_seeds_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seeds", "0"]) == 2
    assert capsys.readouterr().err == "equipoise: Parameter `--seeds` should be 1 or more. Found 0.\n"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.cli.main import main
from equipoise.training.config import make_config
from equipoise.training.run import run

TINY = ("--model.hidden", "4", "--model.encoder", "mean", "--train.epochs", "1", "--train.batch_size", "32")


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["compare", "--data", str(data), "--out", str(out), "--jobs", "1", *more, *TINY]


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_grid_runs_once_and_its_figures_are_those_of_single_runs(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(small_data, tmp_path / "out", "--method", "plain", "ags", "--seeds", "0", "--no-controls", "--json")
    assert main(line) == 0
    first = printed(capsys)
    assert [row["method"] for row in first["table"]["rows"]] == ["plain", "ags"]
    assert [(pair["method"], pair["against"]) for pair in first["pairs"]] == [("ags", "plain")]
    assert all(Path(file).is_file() for file in first["files"])
    assert all(cell["done"] for cell in first["cells"])
    assert first["errors"] == {}

    config = make_config({**first["cells"][0]["config"]})
    alone = run(config, tmp_path / "alone")
    assert first["figures"][0]["mean"] == alone["metrics"]["mae"]
    assert Path(first["figures"][0]["paths"][0]) == Path(first["cells"][0]["run"])

    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "done").iterdir()}
    assert len(results) == 2
    assert main(line) == 0
    assert printed(capsys) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "done").iterdir()} == results


def test_a_dry_run_counts_and_writes_nothing(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(small_data, out, "--no-controls", "--dry-run", "--json")) == 0
    found = printed(capsys)
    assert not out.exists()
    assert [cell["seed"] for cell in found["cells"]] == [0, 1, 2, 3, 4]
    assert found["hours"] > 0
    assert found["table"]["rows"][0]["to run"] == 5


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "nothing to compare: give a grid file, or `--data DIR`. See `equipoise compare --help`."),
        (["--data", "DATA", "--method", "agss"], "Grid key `methods`: Unknown method `agss`. Did you mean `ags`?"),
        (["--data", "DATA", "--jobs", "0"], "Parameter `--jobs` should be 1 or more. Found 0."),
        (["--data", "DATA", "DATA"], "Parameter `--data` should hold folders of different names."),
        (
            ["--data", "DATA", "--train.epoch", "1"],
            "small, LateFusion, plain: Unknown config key `train.epoch`.",
        ),
        (["--data", "DATA", "--train.select", "maee"], "small, LateFusion, plain: Parameter `select` should be"),
        (
            ["--data", "DATA", "--metric", "accurcy"],
            "Parameter `--metric`: Unknown metric `accurcy`. Did you mean `acc",
        ),
        (["--data", "DATA", "--merge", "nowhere"], "nowhere holds no results of `equipoise compare`."),
        (["nowhere.yaml"], "Config file not found: nowhere.yaml."),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    small_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *(str(small_data) if word == "DATA" else word for word in words)]) == 2
    out, err = capsys.readouterr()
    said = err.splitlines()[-1].removeprefix("equipoise: ")
    assert out == ""
    assert said.startswith(line)
    assert not any(tmp_path.glob("runs/*/done/*"))


def test_settings_are_tried_before_anything_is_compared(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "grid.yaml"
    search = "{train.lr: {low: 1e-4, high: 1e-1, log: true}}"
    grid.write_text(f"datasets: {{small: {small_data}}}\ntuning: {{trials: 2}}\nbase: {{search: {search}}}\n")

    def line(out: str, jobs: int, *more: str) -> list[str]:
        words = ["compare", str(grid), "--out", str(tmp_path / out), "--jobs", str(jobs), "--seeds", "0", *more, *TINY]
        return [*words, "--no-controls", "--method", "plain", "ags", "--json"]

    assert main(line("two", 2, "--dry-run")) == 0
    rows = printed(capsys)["table"]["rows"]
    assert [(row["method"], row["to run"]) for row in rows] == [
        ("plain, trial", 2),
        ("ags, trial", 2),
        ("plain", 1),
        ("ags", 1),
    ]
    assert not (tmp_path / "two").exists()

    assert main(line("two", 2)) == main(line("one", 1)) == 0
    two, one = (json.loads(each) for each in capsys.readouterr().out.replace("}\n{", "}\0{").split("\0"))
    assert two["trials"] == one["trials"]
    assert len(one["trials"]) == 4
    assert [figure["trials"] for figure in one["figures"]] == [2, 2]
    assert [figure["mean"] for figure in one["figures"]] == [figure["mean"] for figure in two["figures"]]
    best = {row["method"]: row["settings"]["train.lr"] for row in one["trials"] if row["chosen"]}
    assert {cell["method"]: cell["config"]["train"]["lr"] for cell in one["cells"]} == best
    assert (tmp_path / "one" / "tables" / "trials.csv").read_text().count("\n") == 5

    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "done").iterdir()}
    assert len(results) == 6
    assert main(line("one", 1)) == 0
    assert printed(capsys)["trials"] == one["trials"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "done").iterdir()} == results


def test_a_model_of_the_users_own_is_compared_and_a_changed_line_of_it_is_another(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "class Mine(nn.Module):\n"
        "    def __init__(self, dims, outputs):\n"
        "        super().__init__()\n"
        "        self.encoders = nn.ModuleDict({m: nn.Linear(d, outputs) for m, d in dims.items()})\n"
        "    def forward(self, text, audio, vision):\n"
        "        given = {'text': text, 'audio': audio, 'vision': vision}\n"
        "        return sum(encoder(given[m]).mean(1) for m, encoder in self.encoders.items())\n"
        "def make_model(dims, outputs):\n"
        "    return Mine(dims, outputs)\n"
    )
    words = ["compare", "--data", str(small_data), "--model", f"{file}:make_model", "--out", str(tmp_path / "out")]
    line = [*words, "--method", "plain", "agm", "--seeds", "0", "--no-controls", "--jobs", "1", *TINY[4:], "--json"]
    assert main(line) == 0
    first = printed(capsys)
    assert [figure["method"] for figure in first["figures"]] == ["plain", "agm"]
    assert all(cell["done"] for cell in first["cells"])
    assert main(line) == 0
    assert printed(capsys)["figures"] == first["figures"]
    file.write_text(file.read_text() + "# a remark\n")
    assert main([*line, "--dry-run"]) == 0
    changed = printed(capsys)["cells"]
    assert all(cell["to_run"] for cell in changed)
    assert not {cell["id"] for cell in changed} & {cell["id"] for cell in first["cells"]}

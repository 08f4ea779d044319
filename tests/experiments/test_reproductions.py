"""Every reproduction end to end at the tiny scale: a few by default, all of them with `make reproductions`."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from equipoise.cli.main import main
from equipoise.experiments.reproduction import load, names

FEW = ("agm.table4", "ags-smoe.fig2")
"""Those that run fastest, with a picture and two models of other papers between them."""


@pytest.mark.parametrize("name", names() if os.environ.get("EQUIPOISE_REPRODUCTIONS") == "all" else FEW)
def test_every_row_that_is_to_be_run_has_figures(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", name, "--scale", "tiny", "--jobs", "2", "--out", str(tmp_path)]) == 0
    table = load(name)
    figures = list(csv.DictReader((tmp_path / "figures.csv").read_text().splitlines()))
    ran = {(place, row.label) for place in table.datasets for row in table.rows_of(place) if row.absent is None}
    assert {(row["dataset"], row["row"]) for row in figures if row["ours"]} == ran
    assert {row["difference"] for row in figures} == {""}  # none on generated data
    assert "Generated data" in capsys.readouterr().out

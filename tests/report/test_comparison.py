from __future__ import annotations

import csv
import io
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from tests.experiments.comparisons import comparison, trainings

from equipoise.experiments.analysis import analyse
from equipoise.experiments.verdicts import record
from equipoise.report.comparison import pair_table, rank_table, run_table, score_table
from equipoise.report.tables import Marked, Table, to_csv, to_latex, to_plain


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    rows = [*comparison(dataset="MOSI"), *comparison(dataset="AV_MNIST")]
    rows = [replace(row, marks=("splits leak",)) if row.dataset == "MOSI" else row for row in rows]
    return record(analyse(rows, resamples=100, permutations=200))


def cell(table: Table, method: str, column: int) -> Marked:
    value = next(row for row in table.rows if row[0] == method)[column]
    assert isinstance(value, Marked)
    return value


def test_signs_and_bold_stand_where_the_corrected_p_allows(found: dict[str, Any]) -> None:
    table = score_table(found)
    assert table.columns[3:] == ("MOSI: accuracy ↑", "AV_MNIST: accuracy ↑")
    signs = {str(row[0]): (cell(table, str(row[0]), 3).mark, cell(table, str(row[0]), 3).bold) for row in table.rows}
    assert signs == {
        "plain": ("", False),
        "multi-loss": ("†", False),
        "audio alone": ("", False),
        "agm": ("†‡", True),
        "sl": ("†", False),
        "cp_%$": ("§", False),
    }


def test_the_best_is_not_bold_where_it_is_not_shown_to_beat_a_control() -> None:
    rows = [*trainings("plain", role="plain", sd=0.5), *trainings("agm", 0.001, sd=0.5)]
    table = score_table(record(analyse(rows, resamples=100, permutations=200)))
    assert not any(cell(table, str(row[0]), 3).bold for row in table.rows)


def test_a_lower_error_is_the_better_one() -> None:
    rows = [*trainings("plain", role="plain", metric="mae"), *trainings("agm", -0.2, metric="mae")]
    table = score_table(record(analyse(rows, resamples=100, permutations=200)))
    assert table.columns[3] == "mosi: mae ↓"
    assert cell(table, "agm", 3).bold
    assert not cell(table, "plain", 3).bold


def test_controls_come_first_and_trials_are_printed(found: dict[str, Any]) -> None:
    table = score_table(found)
    assert [row[1] for row in table.rows] == ["control"] * 3 + ["method"] * 3
    assert {row[2] for row in table.rows} == {3}
    assert "MOSI: splits leak." in table.notes
    assert "corrected by Holm over 14 pairs" in table.notes[1]


def test_models_stand_in_columns_of_their_own_and_gaps_stay_open() -> None:
    rows = [*trainings("plain", role="plain"), *trainings("agm", model="TFN")]
    table = score_table(record(analyse(rows, resamples=50, permutations=50)))
    assert table.columns[3:] == ("mosi, LateFusion: accuracy ↑", "mosi, TFN: accuracy ↑")
    assert [row[4] is None for row in table.rows] == [True, False]


def test_every_figure_names_its_runs(found: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(run_table(found)))))
    assert len(rows) == 12
    assert rows[3]["runs"].split() == [f"runs/MOSI/agm/seed-{seed}" for seed in range(5)]
    assert float(rows[3]["value"]) == next(f["mean"] for f in found["figures"] if f["method"] == "agm")


def test_pairs_keep_what_the_tests_found(found: dict[str, Any]) -> None:
    table = pair_table(found)
    shown = dict(zip(table.columns, table.rows[4], strict=True))
    pair = found["pairs"][4]
    assert (shown["method"], shown["against"], shown["outcome"]) == ("sl", "multi-loss", "unclear")
    assert shown["difference"] == pair["difference"]
    assert (shown["p corrected"], shown["its least"]) == (f"{pair['corrected']:.3f}", "0.062")


def test_one_seed_prints_dashes_for_what_was_not_tested() -> None:
    found = record(analyse(comparison(seeds=1), resamples=50, permutations=50))
    shown = dict(zip(pair_table(found).columns, pair_table(found).rows[0], strict=True))
    assert shown["p both"] is shown["p corrected"] is shown["95 % interval"] is shown["Hedges' g"] is None
    assert "±" not in to_plain(score_table(found)).split("Mean")[0]


def test_ranks_by_hand() -> None:
    ranking = {"ranks": {"a": 1.0, "b": 2}, "datasets": ["x", "y"], "statistic": None, "p": None, "difference": 1.386}
    assert to_plain(rank_table("TFN", ranking), 2) == (
        "Average ranks, TFN\n\nmethod  rank\n------  ----\na       1.00\nb       2.00\n\n"
        "Over x, y. Ranks closer than Nemenyi's critical difference, 1.39, are not told apart. With so few datasets "
        "both tests see only large differences.\n"
    )


@pytest.mark.parametrize("table_of", [score_table, pair_table, run_table])
def test_latex_is_whole(found: dict[str, Any], table_of: Any, tmp_path: Path) -> None:
    """Compiled where a TeX is there; else: its rows have their cells, its groups close, nothing is left unescaped."""
    table = table_of(found)
    text = to_latex(table)
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == len(table.rows)
    for line in body:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == len(table.columns) - 1
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[&%$#_{}]", "", code)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[%#_]", bare)
    assert bare.isascii()
    assert bare.index(r"\toprule") < bare.index(r"\midrule") < bare.index(r"\bottomrule") < bare.index(r"\end{tabular}")
    tex = which("pdflatex")
    if tex is not None:
        page = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
        (tmp_path / "page.tex").write_text(page)
        subprocess.run([tex, "-halt-on-error", "page.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_bold_is_that_of_latex(found: dict[str, Any]) -> None:
    bold = [line for line in to_latex(score_table(found)).splitlines() if "textbf" in line]
    assert len(bold) == 1
    assert bold[0].startswith(r"agm & method & 3 & \textbf{0.79")

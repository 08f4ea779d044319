"""Rows that are alike whatever clips lack, and a table that says all a person has to know."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.scoring.clips import about

from equipoise.scoring.files import write_scores
from equipoise.scoring.result import ClipScore
from equipoise.scoring.rows import flat_columns, flat_rows, score_table

WIDTHS = {"text": 8, "audio": 3}


def test_several_targets() -> None:
    info = about(WIDTHS, outputs=2)
    score = ClipScore(
        "a",
        end=2.0,
        values={"0": 1.0, "1": 2.0},
        interval={"0": (0.5, 1.5), "1": (1.0, 3.0)},
        level=0.9,
        baseline={"0": 0.25, "1": 0.5},
        contributions={"audio": {"0": 0.75, "1": 1.5}},
        missing={"text": "no transcript"},
        notes=("one", "two"),
    )
    (row,) = flat_rows([score], info)
    assert list(row) == list(flat_columns(info))
    assert (row["0"], row["0_low"], row["1_high"]) == (1.0, 0.5, 3.0)
    assert (row["contribution_audio_1"], row["contribution_text_1"], row["baseline_0"]) == (1.5, None, 0.25)
    assert (row["used"], row["missing"], row["notes"]) == ("audio", "text: no transcript", "one; two")
    table = score_table([score], info, "t")
    assert table.columns == ("clip", "0", "interval", "1", "interval", "+ text", "+ audio")
    assert table.rows == (("a", 1.0, "0.500 to 1.500", 2.0, "1.000 to 3.000", None, 0.75),)
    assert "a: without text: no transcript" in table.notes


def test_contributions_to_the_class_named() -> None:
    info = about(WIDTHS, classes=("x", "y"))
    score = ClipScore(
        "a",
        values={"x": 0.25, "y": 0.75},
        label="y",
        likely=("y", "x"),
        level=0.9,
        baseline={"x": 0.5, "y": 0.5},
        contributions={"text": {"x": -0.5, "y": 0.5}, "audio": {"x": 0.25, "y": -0.25}},
    )
    (row,) = flat_rows([score], info)
    assert (row["p_x"], row["p_y"], row["label"], row["likely"]) == (0.25, 0.75, "y", "y; x")
    assert (row["contribution_text"], row["contribution_audio"], row["baseline"]) == (0.5, -0.25, 0.5)
    assert score_table([score], info, "t").rows == (("a", "y", 0.25, 0.75, "y, x", 0.5, -0.25),)


def test_many_classes_do_not_widen_the_table() -> None:
    names = tuple(f"class {i}" for i in range(40))
    score = ClipScore("a", values=dict.fromkeys(names, 1 / 40), label=names[3], contributions={"text": {names[3]: 0.0}})
    assert score_table([score], about(WIDTHS, classes=names), "t").columns == (
        "clip",
        "label",
        "likely",
        "+ text",
        "+ audio",
    )
    assert len(flat_columns(about(WIDTHS, classes=names))) > 40


@pytest.mark.parametrize("classes", [None, ("x", "y")])
def test_clips_without_a_score_have_the_columns_of_the_others(tmp_path: Path, classes: tuple[str, ...] | None) -> None:
    info = about(WIDTHS, classes=classes)
    failed = ClipScore('Ünïcode, "quoted".mp4', error="cut off")
    write_scores(tmp_path / "s.csv", [failed], info, "m")
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == list(flat_columns(info))
    assert {name for name, value in row.items() if value} == {"clip", "start", "end", "error"}
    assert row["clip"] == 'Ünïcode, "quoted".mp4'
    table = score_table([failed], info, "t")
    assert "no score: cut off" in table.notes[-1]


def test_pieces_of_a_timeline_show_their_times() -> None:
    info = about({"audio": 3})
    scores = [
        ClipScore("a", s, s + 2.0, {"score": s}, baseline={"score": 0.0}, contributions={"audio": {"score": s}})
        for s in (0.0, 2.0)
    ]
    table = score_table(scores, info, "t")
    assert [row[1:3] for row in table.rows] == [(0.0, 2.0), (2.0, 4.0)]

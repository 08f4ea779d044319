from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from equipoise.report.robustness import curves, points_table, subset_values, summary_table
from equipoise.report.robustness_plot import plot_robustness
from equipoise.report.tables import Spread, to_csv, to_plain


def row(kind: str, of: str, level: float | None, draw: int, mae: float | None) -> dict[str, Any]:
    return {"kind": kind, "of": of, "level": level, "draw": draw, "share": None, "metrics": {"mae": mae}}


def seed(shift: float) -> list[dict[str, Any]]:
    """Text and audio; text missing costs 1 at 50 %, with draws .1 apart, and 2 at 100 %."""
    return [
        row("subset", "text+audio", None, 0, 1 + shift),
        row("subset", "text", None, 0, 1.5 + shift),
        row("subset", "audio", None, 0, 3 + shift),
        *(row("modalities", "text", 0.5, draw, 1.9 + 0.2 * draw + shift) for draw in range(2)),
        *(row("modalities", "text", 1.0, draw, 3 + shift) for draw in range(2)),
        *(row("noise", "all", 2.0, draw, 4 + shift) for draw in range(2)),
    ]


def test_a_curve_starts_at_the_plain_score_and_is_a_mean_over_draws_with_a_spread_over_seeds() -> None:
    text, noise = curves({"plain": [seed(0.0), seed(0.2)]}, "mae")
    assert (text.kind, text.of, text.levels, noise.levels) == ("modalities", "text", (0.0, 0.5, 1.0), (0.0, 2.0))
    sd = 0.1 * math.sqrt(2)  # of two values .2 apart
    for found, expected in zip(text.values, (1.1, 2.1, 3.1), strict=True):
        assert found is not None
        assert [found.mean, found.sd] == pytest.approx([expected, sd])
    assert text.mean is not None
    assert [text.mean.mean, text.mean.sd] == pytest.approx([2.6, sd])


def test_a_single_seed_has_the_spread_of_its_draws() -> None:
    text, _ = curves({"plain": [seed(0.0)]}, "mae")
    at_zero, at_half, at_one = text.values
    assert at_zero == Spread(1.0, None, 1)
    assert at_half is not None
    assert [at_half.mean, at_half.sd] == pytest.approx([2.0, 0.1 * math.sqrt(2)])
    assert at_one == Spread(3.0, 0.0, 2)


@pytest.mark.parametrize("undefined", [None, math.nan])
def test_a_metric_that_is_undefined_in_a_draw_has_no_value(undefined: float | None) -> None:
    rows = [*seed(0.0), row("frames", "text", 0.9, 0, undefined), row("frames", "text", 0.9, 1, 1.0)]
    groups = {"plain": [rows, rows]}
    (frames,) = [curve for curve in curves(groups, "mae") if curve.kind == "frames"]
    assert frames.values[1] is None
    assert frames.mean is None
    assert "text frames missing" in to_plain(summary_table(groups, "mae", title="t"))


def test_the_table_has_a_column_a_run_and_a_row_a_corruption() -> None:
    only_audio = [row("subset", "audio", None, 0, 2.0), row("frames", "audio", 0.5, 0, 2.5)]
    table = summary_table({"both": [seed(0.0)], "alone": [only_audio]}, "mae", title="mae on nothing", notes=["n"])
    assert table.columns == ("", "level", "both", "alone")
    found = {
        (cells[0], cells[1]): [cell.mean if isinstance(cell, Spread) else cell for cell in cells[2:]]
        for cells in table.rows
    }
    assert found == {
        ("nothing missing", ""): [1.0, 2.0],
        ("only text", ""): [1.5, None],
        ("only audio", ""): [3.0, 2.0],
        ("text missing in samples", "mean of 50 % to 100 %"): [pytest.approx(2.5), None],
        ("text missing in samples", "100 %"): [3.0, None],
        ("noise on all", "2 std"): [4.0, None],
        ("audio frames missing", "50 %"): [None, 2.5],
    }


def test_every_point_is_in_the_file() -> None:
    text = to_csv(points_table({"plain": [seed(0.0), seed(0.2)]}, "mae", title="t"))
    lines = text.splitlines()
    assert lines[0] == "run,kind,of,level,mae,mae_sd"
    assert len(lines) == 1 + 3 + 3 + 2
    assert lines[1].startswith("plain,subset,text+audio,,1.1,0.14")
    assert lines[5].startswith("plain,modalities,text,0.5,2.1,0.14")


def test_the_picture_has_a_panel_for_each_corruption_of_each_modality(tmp_path: Path) -> None:
    groups = {"plain": [seed(0.0), seed(0.2)], "other": [seed(0.3), seed(0.1)]}
    found = plot_robustness(
        curves(groups, "mae"), subset_values(groups, "mae"), tmp_path / "p", metric="mae", title="mae on nothing"
    )
    assert found == [tmp_path / "p.svg", tmp_path / "p.png"]
    svg = found[0].read_text(encoding="utf-8")
    for words in ("mae on nothing", "text missing", "all: noise", "what is left of every sample", "lower is better"):
        assert words in svg
    assert svg.count(">other<") == 1  # in the legend, once
    again = plot_robustness(
        curves(groups, "mae"), subset_values(groups, "mae"), tmp_path / "q", metric="mae", title="mae on nothing"
    )
    assert again[0].read_bytes() == found[0].read_bytes()
    alone = {"alone": [[row("subset", "audio", None, 0, 2.0), row("frames", "audio", 0.5, 0, 2.5)]]}
    plot_robustness(curves(alone, "mae"), subset_values(alone, "mae"), tmp_path / "r", metric="mae", title="t")
    assert "what is left" not in (tmp_path / "r.svg").read_text(encoding="utf-8")

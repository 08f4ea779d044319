"""Charts and tables of a report, by numbers worked out by hand."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from equipoise.diagnostics.page_html import to_html
from equipoise.diagnostics.page_lines import DASHES, draw_curves
from equipoise.diagnostics.page_scatter import draw_scatter
from equipoise.diagnostics.section import Curve, Curves, Panel, Scatter, Section
from equipoise.diagnostics.sections_model import competition_section, experts_section, local_section, maps_section
from equipoise.diagnostics.sections_run import robustness_section


def paths(svg: str) -> list[dict[str, str]]:
    return [dict(each.attrib) for each in ElementTree.fromstring(svg).iter("path")]


def test_a_curve_goes_where_its_numbers_are() -> None:
    lines = (Curve("a<b", ((0.0, 0.8), (0.5, 0.6), (1.0, 0.4)), "0.4"), Curve("flat", ((0.0, 0.8), (1.0, 0.8)), "0.8"))
    svg = draw_curves(Curves("accuracy", "rate", lines, 0.5, "constant"), "x")
    first, flat = (
        re.findall(r"-?[\d.]+", each["d"]) for each in paths(svg) if each["d"].count("L") and each["fill"] == "none"
    )
    xs, ys = [float(each) for each in first[::2]], [float(each) for each in first[1::2]]
    assert xs[1] - xs[0] == xs[2] - xs[1] > 0
    assert abs((ys[1] - ys[0]) - (ys[2] - ys[1])) < 0.15
    assert ys[2] > ys[0], "less is lower on the page"
    assert flat[1] == flat[3] == first[1]
    (mark,) = [each for each in paths(svg) if each.get("stroke") == "var(--mark)"]
    height = float(re.findall(r"[\d.]+", mark["d"])[1])
    assert abs(height - (ys[1] + ys[2]) / 2) < 0.15, ".5 lies between .6 and .4"
    assert "a&lt;b" in svg
    assert len(set(DASHES)) == len(DASHES)


def test_one_level_or_one_value_is_drawn_all_the_same() -> None:
    svg = draw_curves(Curves("mae", "rate", (Curve("all", ((0.0, 1.2),), "1.2"),)), "x")
    assert "nan" not in svg
    assert "inf" not in svg


def test_every_sample_is_a_dot_inside_its_panel() -> None:
    points = ((-30.0, 0.0), (50.0, 10.0), (0.0, -20.0), (5.0, 5.0))
    scatter = Scatter(
        "maps",
        (Panel("text", points, (0, 1, 9, 12), "0.4"), Panel("fused", points[:1], (0,), "")),
        tuple("abcdefghijklm"),
    )
    svg = draw_scatter(scatter, "x")
    dots = [each for each in paths(svg) if each.get("stroke-width") == "2.6"]
    assert [each["d"].count("M") for each in dots] == [2, 1, 1, 1]
    assert [each["stroke"] for each in dots[:3]] == ["var(--line)", "var(--k1)", "var(--k0)"], "what is pale lies below"
    side = (360 - 16) / 3
    for each in dots[:3]:
        for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", each["d"]):
            assert 3.9 <= float(x) <= side - 3.9
            assert 46 + 3.9 <= float(y) <= 46 + side - 3.9
    left, right = (re.findall(r"[\d.]+", dots[number]["d"]) for number in (2, 1))
    assert float(right[0]) - float(left[0]) == round(side - 8, 1), "the wider axis fills the panel"
    assert "5 more" in svg


def maps(value: float) -> dict[str, Any]:
    panel = {"points": [[0, 1], [2, 3]], "rows": [0, 1], "labels": [0, 1]}
    probe = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"labels": ["a", "b"], "panels": {"text": panel | {"probe": probe}, "fused": panel | {"probe": None}}}


def test_maps_of_two_models_stand_side_by_side() -> None:
    content = {"about": {"metric": "accuracy"}, "maps": {"the run": maps(0.5), "unbalanced": maps(0.4)}}
    section = maps_section(content)
    assert section is not None
    assert section.rows[0] == ("text", "50.0 % [40.0, 60.0]", "40.0 % [30.0, 50.0]")
    assert section.rows[1] == ("fused", "–", "–")
    assert [chart.title for chart in section.charts] == ["t-SNE of the run", "t-SNE of unbalanced"]
    assert to_html("x", [], [section]).count("<svg") == 2
    assert maps_section({"about": {"metric": "accuracy"}}) is None


def test_experts_and_what_they_take_are_told() -> None:
    tokens = {"name": "a.mix", "kind": "tokens", "load": [0.9, 0.08, 0.02], "imbalance": 1.2, "parts": [[1, 0, 0]] * 4}
    vectors = {"name": "b.mixer", "kind": "vectors", "load": [0.75, 0.25], "imbalance": 0.5}
    vectors["parts"] = [[0.2, None], [0.8, None]]
    content = {"experts": [tokens, vectors]}
    section = experts_section(content)
    assert section is not None
    assert section.rows[0] == ("a.mix", "tokens", "3", "1.20", "90 % (expert 1)", "1")
    assert section.rows[1] == ("b.mixer", "vectors", "2", "0.50", "75 % (expert 1)", "0")
    local = local_section(content)
    assert local is not None
    assert local.rows == (("b.mixer: 1", "75 %", "20 %", "80 %"), ("b.mixer: 2", "25 %", "–", "–"))
    assert experts_section({"experts": []}) is None
    assert local_section({"experts": [tokens]}) is None


def test_competition_by_epoch_is_a_table_and_a_curve() -> None:
    def at(epoch: int, value: float | None) -> dict[str, Any]:
        return {"epoch": epoch, "strength": {"text": {"strength": value, "low": 0.1, "high": 0.9}}}

    section = competition_section({"competition_by_epoch": [at(1, 0.75), at(2, None), at(4, 0.5)]})
    assert section is not None
    assert section.rows == (("1", "0.75 [0.10, 0.90]"), ("2", "–"), ("4", "0.50 [0.10, 0.90]"))
    (chart,) = section.charts
    assert isinstance(chart, Curves)
    assert chart.lines[0].points == ((1.0, 0.75), (4.0, 0.5))


def test_curves_of_what_is_missing_begin_at_the_whole_score() -> None:
    def row(kind: str, of: str, level: float | None, value: float) -> dict[str, Any]:
        return {"kind": kind, "of": of, "level": level, "value": value}

    rows = [row("subset", "a+b", None, 0.8), row("subset", "a", None, 0.6)]
    rows += [row("modalities", "a", 1.0, 0.5), row("modalities", "a", 0.5, 0.7), row("frames", "all", 0.9, 0.65)]
    section = robustness_section({"robustness": {"metric": "accuracy", "constant": 0.4, "rows": rows}})
    assert section is not None
    assert ("a missing in samples", "0.600", "1", "0.500") in section.rows
    missing, frames = section.charts
    assert isinstance(missing, Curves)
    assert isinstance(frames, Curves)
    assert missing.lines == (Curve("a", ((0.0, 0.8), (0.5, 0.7), (1.0, 0.5)), "0.500"),)
    assert frames.lines[0].points == ((0.0, 0.8), (0.9, 0.65))
    assert missing.mark == 0.4
    assert isinstance(section, Section)

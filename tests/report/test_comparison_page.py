from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.comparisons import comparison, trainings

from equipoise.experiments.analysis import analyse
from equipoise.experiments.verdicts import record
from equipoise.report.comparison_page import comparison_page, differences, write_comparison

NAMES = ("comparison.json", "comparison.md", "comparison.html", "scores.csv", "scores.tex", "pairs.csv", "pairs.tex",
         "runs.csv", "runs.tex", "ranks-LateFusion.svg", "ranks-LateFusion.png")  # fmt: skip


class Page(HTMLParser):
    """Collects what a browser would fetch, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\xa0", " ")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    rows = [*comparison(dataset="MOSI"), *comparison(dataset="<b>AV</b>")]
    return record(analyse(rows, resamples=50, permutations=50))


def test_the_page_needs_nothing_else(found: dict[str, Any]) -> None:
    html = comparison_page(found)
    page = Page(html)
    assert page.fetched == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)


def test_names_are_text_never_markup(found: dict[str, Any]) -> None:
    page = Page(comparison_page(found, title="a < b"))
    assert "b" not in page.tags
    assert "<b>AV</b>: accuracy ↑" in page.text
    assert "a < b" in page.text


def test_the_page_has_every_sentence_every_figure_and_every_run(found: dict[str, Any]) -> None:
    text = Page(comparison_page(found)).text
    for line in found["verdict"]:
        assert line in text
    for figure in found["figures"]:
        assert f"{figure['mean']:.3f} ± {figure['sd']:.3f}" in text
        assert all(path in text for path in figure["paths"])


def test_differences_are_drawn_where_they_have_an_interval(found: dict[str, Any]) -> None:
    picture = differences(found, "difference")
    assert picture is not None
    assert len(picture.points) == len(found["pairs"])
    assert (picture.points[1].label, picture.points[1].value) == ("agm − plain", found["pairs"][1]["difference"])
    assert picture.points[1].low < picture.points[1].value < picture.points[1].high
    one = record(analyse([*trainings("plain", role="plain", seeds=1), *trainings("agm", seeds=1)], resamples=9))
    assert differences(one, "difference") is None
    assert "not tested" in Page(comparison_page(one)).text


def test_lines_of_ranks_meet_where_methods_are_not_told_apart(found: dict[str, Any]) -> None:
    ranking = found["rankings"]["LateFusion"]
    html = comparison_page({**found, "rankings": {"LateFusion": {**ranking, "difference": 0.5}}})
    assert "lines that don't meet are told apart" in Page(html).text
    starts = [float(x) for x in re.findall(r'<path d="M([\d.]+) [\d.]+H[\d.]+" stroke="var\(--point\)"', html)][-5:]
    ends = [float(x) for x in re.findall(r'<path d="M[\d.]+ [\d.]+H([\d.]+)" stroke="var\(--point\)"', html)][-5:]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))


def test_files_say_the_same(found: dict[str, Any], tmp_path: Path) -> None:
    assert [path.name for path in write_comparison(found, tmp_path / "out")] == list(NAMES)
    assert json.loads((tmp_path / "out/comparison.json").read_text()) == json.loads(json.dumps(found))
    scores = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    means = {figure["method"]: figure["mean"] for figure in found["figures"] if figure["dataset"] == "MOSI"}
    assert {row["method"]: float(row["MOSI: accuracy ↑"]) for row in scores} == means
    markdown = (tmp_path / "out/comparison.md").read_text()
    assert markdown.startswith(f"- {found['verdict'][0]}\n")
    assert "**0.79" in markdown

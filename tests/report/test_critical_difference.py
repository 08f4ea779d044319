from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from equipoise.report.critical_difference import _levels, plot_critical_difference

RANKING: dict[str, Any] = {
    "ranks": {"plain": 2.5, "agm": 1.25, "cp_$x": 3.5, "sl": 2.75},
    "datasets": ["a", "b", "c", "d"],
    "difference": 1.4,
    "groups": [["agm", "plain"], ["plain", "sl", "cp_$x"]],
}


def svg(path: Path, **changes: Any) -> str:
    files = plot_critical_difference({**RANKING, **changes}, path / "ranks", title="Ranks")
    assert [file.suffix for file in files] == [".svg", ".png"]
    return files[0].read_text()


def bars(text: str) -> list[tuple[float, float]]:
    """Left and right ends of the thick lines."""
    found = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n" [^>]*stroke-width: 4', text)
    return [(float(a), float(b)) for a, b in found]


def test_every_method_is_named_with_its_rank_and_every_group_has_a_bar(tmp_path: Path) -> None:
    text = svg(tmp_path)
    for name, rank in RANKING["ranks"].items():
        assert f"{name} ({rank:.2f})" in text
    first, second = bars(text)
    unit = (first[1] - first[0] - (second[1] - second[0])) / (1.25 - 1.0)  # spans differ by a quarter of a rank
    assert first[0] < second[0] < first[1] < second[1]
    assert second[0] - first[0] == pytest.approx(1.25 * unit, rel=1e-3)
    assert "critical difference 1.40<" in text


def test_without_groups_there_is_no_bar_and_a_long_ruler_is_cut(tmp_path: Path) -> None:
    text = svg(tmp_path, groups=[], difference=7.0)
    assert bars(text) == []
    assert "critical difference 7.00 (longer than the axis)" in text


def test_bars_that_overlap_lie_on_levels_of_their_own() -> None:
    assert _levels([(1, 2), (1.5, 3), (2.5, 4)]) == [(1, 2, 0), (1.5, 3, 1), (2.5, 4, 0)]


def test_one_method_is_no_ranking(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Found 1"):
        plot_critical_difference({**RANKING, "ranks": {"a": 1.0}}, tmp_path / "x")

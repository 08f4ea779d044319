from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from equipoise.report.runs import Run
from equipoise.report.trace_plots import _ratios, plot_directions, plot_dominance, plot_factors

NAN = math.nan


def make_run(*, balanced: bool, count: int = 6, columns: dict[str, Any] | None = None) -> Run:
    steps = {
        "step": [float(i + 1) for i in range(count)],
        "norm/text": [4.0] * count,
        "norm/audio": [1.0, NAN, *[2.0] * (count - 2)],
    }
    if balanced:
        steps |= {
            "norm_after/text": [2.0, *[NAN] * (count - 1)],
            "norm_after/audio": [1.0, *[NAN] * (count - 1)],
            "factor/text": [0.5] * count,
            "factor/audio": [1.0] * count,
        }
    epochs = {"epoch": [1.0, 2.0, 3.0], "direction/text": [0.5, NAN, 1.0], "direction/audio": [NAN, NAN, -0.25]}
    return Run(Path("somewhere"), epochs | (columns or {}), steps, None)


GROUPS = {"plain": [make_run(balanced=False)], "ags": [make_run(balanced=True), make_run(balanced=True, count=4)]}


def test_ratios_are_of_the_others_and_binned_on_the_log_scale() -> None:
    x, found = _ratios(GROUPS["plain"][0], "norm")
    assert x == [1, 3, 4, 5, 6]  # one norm of step 2 is unknown
    assert found["text"] == pytest.approx([4, 2, 2, 2, 2])
    assert found["audio"] == pytest.approx([0.25, 0.5, 0.5, 0.5, 0.5])
    many = make_run(balanced=False, count=241)
    many.steps["norm/audio"] = [1.0, 4.0] * 120 + [4.0]
    x, found = _ratios(many, "norm")
    assert x[:2] == [2.0, 5.0]  # 3 steps a point
    assert found["text"][:2] == pytest.approx([(4 * 1 * 4) ** (1 / 3), (1 * 4 * 1) ** (1 / 3)])


def words_of(files: list[Path]) -> str:
    svg, png = files
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return svg.read_text()


def test_dominance_shows_before_and_after(tmp_path: Path) -> None:
    text = words_of(plot_dominance(GROUPS, tmp_path / "dominance"))
    for word in ("plain", "ags", "ags, as the balancer left them", "step", "text", "audio"):
        assert f">{word}<" in text
    assert ">plain, as the balancer left them<" not in text
    assert "as the balancer" not in words_of(plot_dominance({"plain": GROUPS["plain"]}, tmp_path / "one"))


def test_factors_are_of_the_groups_that_have_some(tmp_path: Path) -> None:
    text = words_of(plot_factors(GROUPS, tmp_path / "factors"))
    assert ">ags<" in text
    assert ">plain<" not in text
    with pytest.raises(ValueError, match="should hold runs with factors"):
        plot_factors({"plain": GROUPS["plain"]}, tmp_path / "none")


def test_directions_tell_how_to_get_some(tmp_path: Path) -> None:
    text = words_of(plot_directions(GROUPS, tmp_path / "directions"))
    for word in ("plain", "ags", "epoch", "cosine"):
        assert f">{word}<" in text
    bare = make_run(balanced=False, columns={"direction/text": [NAN] * 3, "direction/audio": [NAN] * 3})
    with pytest.raises(ValueError, match=r"train\.direction_every"):
        plot_directions({"plain": [bare]}, tmp_path / "none")


def test_a_run_of_one_modality_dominates_nobody(tmp_path: Path) -> None:
    alone = Run(Path("somewhere"), {"epoch": [1.0], "norm/text": [1.0]}, {"step": [1.0], "norm/text": [1.0]}, None)
    with pytest.raises(ValueError, match="two modalities"):
        plot_dominance({"alone": [alone]}, tmp_path / "x")

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equipoise.report.map_plot import plot_maps


def test_a_panel_for_each_map_and_a_dot_for_each_sample(tmp_path: Path) -> None:
    points, groups = np.arange(12.0).reshape(6, 2), np.array(["a", "b", "b", "a", "c", "c"])
    models = {"plain": {"text": (points, groups)}, "balanced": {"text": (points, groups), "fused": (points, groups)}}
    svg, png = plot_maps(models, tmp_path / "maps", title="Maps")
    drawn = svg.read_text()
    assert drawn.count('id="axes_') == 4
    assert drawn.count("<use") >= 3 * 6  # three maps of six samples; a panel without a map stays empty
    for word in ("Maps", "plain", "balanced", "text", "fused", ">a<", ">b<", ">c<"):
        assert word in drawn
    assert png.stat().st_size > 1000
    assert svg.read_bytes() == plot_maps(models, tmp_path / "again", title="Maps")[0].read_bytes()


def test_no_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one map"):
        plot_maps({"plain": {}}, tmp_path / "maps", title="Maps")

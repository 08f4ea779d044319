from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from equipoise.report.curves import MAX_POINTS, binned
from equipoise.report.plots import plot_loss, plot_norms, plot_own_accuracy
from equipoise.report.runs import Run


def make_run(scale: float, epochs: int = 4, steps: int = 6) -> Run:
    return Run(
        path=Path("somewhere"),
        epochs={
            "epoch": [float(e) for e in range(epochs)],
            "train_loss": [scale / (e + 1) for e in range(epochs)],
            "valid_loss": [scale / (e + 1) + 0.1 for e in range(epochs)],
            "valid/text/acc": [0.5 + 0.1 * e for e in range(epochs)],
            "valid/audio/acc": [0.4 + 0.1 * e for e in range(epochs)],
        },
        steps={
            "step": [float(s) for s in range(steps)],
            "norm/text": [scale * (s + 1) for s in range(steps)],
            "norm/audio": [0.0] * steps,
        },
        test=None,
    )


GROUPS = {"plain": [make_run(1.0), make_run(1.2, epochs=3)], "balanced": [make_run(0.8)]}


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_loss_plot_names_its_groups_axes_and_curves(tmp_path: Path) -> None:
    svg, png = plot_loss(GROUPS, tmp_path / "plots" / "loss", title="Loss (synthetic data)")
    text = svg.read_text()
    for word in ("plain", "balanced", "epoch", "loss", "training", "validation", "Loss (synthetic data)"):
        assert f">{word}<" in text
    width, height = png_size(png)
    assert width > height > 400


def test_norms_plot_is_by_step_and_leaves_zero_norms_out(tmp_path: Path) -> None:
    svg, _ = plot_norms(GROUPS, tmp_path / "norms")
    text = svg.read_text()
    assert ">step<" in text
    assert ">text<" in text
    assert ">audio<" not in text  # all zeros: nothing to draw on a log scale


def test_norms_fall_back_on_epochs(tmp_path: Path) -> None:
    run = Run(Path("x"), {"epoch": [0.0, 1.0], "norm/text": [1.0, 2.0]}, {}, None)
    assert ">epoch<" in plot_norms({"plain": [run]}, tmp_path / "n")[0].read_text()


def test_own_accuracy_has_a_panel_a_modality_and_the_level_alone(tmp_path: Path) -> None:
    svg, _ = plot_own_accuracy(GROUPS, tmp_path / "own", metric="acc", alone={"text": 0.9})
    text = svg.read_text()
    for word in ("text", "audio", "plain", "balanced", "trained alone", "acc (validation)"):
        assert f">{word}<" in text


def test_a_model_without_own_predictions_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No column `valid/<modality>/mae`"):
        plot_own_accuracy(GROUPS, tmp_path / "own", metric="mae")


@pytest.mark.parametrize("groups", [{}, {"plain": []}])
def test_no_runs_is_told(tmp_path: Path, groups: dict[str, list[Run]]) -> None:
    with pytest.raises(ValueError, match="at least one run a group"):
        plot_loss(groups, tmp_path / "loss")


def test_pictures_are_reproducible(tmp_path: Path) -> None:
    first, second = plot_loss(GROUPS, tmp_path / "a"), plot_loss(GROUPS, tmp_path / "b")
    assert first[0].read_bytes() == second[0].read_bytes()


def test_long_curves_are_means_of_equal_bins() -> None:
    assert binned([1.0, 3.0, 5.0, math.nan, 9.0], 2) == [2.0, 5.0, 9.0]
    assert math.isnan(binned([math.nan], 2)[0])
    assert MAX_POINTS > 1

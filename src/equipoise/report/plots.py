"""Plots of run directories: loss, gradient norm of each modality, each modality's own metric.

Every function takes groups of runs, `{"plain": [run, ...], "balanced": [run, ...]}`, one run a seed, and draws the mean
over seeds with a band of one standard deviation. Each picture is written twice, as SVG and as PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.report.curves import by_epoch, by_step, check_groups, curve, log_scale, panels_in_row, whole_ticks
from equipoise.report.figures import COLORS, DASHES, legend, save, style
from equipoise.report.runs import Run


def plot_loss(groups: Mapping[str, Sequence[Run]], path: str | Path, *, title: str = "Loss") -> list[Path]:
    """Training and validation loss by epoch, one panel a group, on a common scale.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.
    """
    check_groups(groups)
    with style():
        figure, panels = panels_in_row(len(groups), title)
        for axes, (name, runs) in zip(panels, groups.items(), strict=True):
            for i, (column, label) in enumerate((("train_loss", "training"), ("valid_loss", "validation"))):
                x, series = by_epoch(runs, column)
                curve(axes, x, series, label=label, color=COLORS[i], dashes=DASHES[i])
            axes.set_title(name)
            axes.set_xlabel("epoch")
            whole_ticks(axes)
        panels[0].set_ylabel("loss")
        legend(figure, panels)
        return save(figure, path)


def plot_norms(groups: Mapping[str, Sequence[Run]], path: str | Path, *, title: str = "Gradient norm") -> list[Path]:
    """Gradient norm of each modality on a log scale, one panel a group, by step (by epoch without a `steps.csv`).

    Mean and band are those of the logarithm. A norm of zero has none and is left out.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.
    """
    check_groups(groups)
    steps_known = all(any(name.startswith("norm/") for name in run.steps) for runs in groups.values() for run in runs)
    with style():
        figure, panels = panels_in_row(len(groups), title)
        for axes, (name, runs) in zip(panels, groups.items(), strict=True):
            for i, modality in enumerate(runs[0].modalities):
                x, series = (by_step if steps_known else by_epoch)(runs, f"norm/{modality}")
                curve(
                    axes,
                    x,
                    series,
                    label=modality,
                    color=COLORS[i % len(COLORS)],
                    dashes=DASHES[i % len(DASHES)],
                    log=True,
                )
            axes.set_title(name)
            axes.set_xlabel("step" if steps_known else "epoch")
            log_scale(axes)
            whole_ticks(axes)
        panels[0].set_ylabel("gradient norm (log scale)")
        legend(figure, panels)
        return save(figure, path)


def plot_own_accuracy(
    groups: Mapping[str, Sequence[Run]],
    path: str | Path,
    *,
    metric: str,
    alone: Mapping[str, float] | None = None,
    title: str = "Each modality's own accuracy",
) -> list[Path]:
    """A metric of each modality's own predictions on validation data by epoch: one panel a modality, one curve a group.

    Args:
        groups: runs with columns `valid/<modality>/<metric>`.
        path: where to write, any suffix.
        metric: the metric's name.
        alone: value each modality reaches when trained without the others, drawn as a level.
        title: printed above the panels.

    Raises:
        ValueError: no run has such a column.
    """
    check_groups(groups)
    first = next(iter(groups.values()))[0]
    names = [m for m in first.modalities if f"valid/{m}/{metric}" in first.epochs]
    if not names:
        raise ValueError(
            f"No column `valid/<modality>/{metric}` in {first.path / 'metrics.csv'}: "
            "the model has no head of its own for each modality."
        )
    with style():
        figure, panels = panels_in_row(len(names), title)
        for axes, modality in zip(panels, names, strict=True):
            for i, (name, runs) in enumerate(groups.items()):
                x, series = by_epoch(runs, f"valid/{modality}/{metric}")
                curve(axes, x, series, label=name, color=COLORS[i % len(COLORS)], dashes=DASHES[i % len(DASHES)])
            if alone and modality in alone:
                axes.axhline(alone[modality], color="#777777", linestyle=(0, (1, 2)), label="trained alone")
            axes.set_title(modality)
            axes.set_xlabel("epoch")
            whole_ticks(axes)
        panels[0].set_ylabel(f"{metric} (validation)")
        legend(figure, panels)
        return save(figure, path)

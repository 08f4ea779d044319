"""Plots of run directories: loss, gradient norm of each modality, each modality's own metric.

Every function takes groups of runs, `{"plain": [run, ...], "balanced": [run, ...]}`, one run a seed, and draws the mean
over seeds with a band of one standard deviation. Each picture is written twice, as SVG and as PNG.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.report.figures import COLORS, DASHES, legend, save, style
from equipoise.report.runs import Run
from equipoise.report.tables import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 120  # a longer curve of steps is averaged in equal bins, else noise hides the trend


def plot_loss(groups: Mapping[str, Sequence[Run]], path: str | Path, *, title: str = "Loss") -> list[Path]:
    """Training and validation loss by epoch, one panel a group, on a common scale.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.
    """
    _check(groups)
    with style():
        figure, panels = _panels(len(groups), title)
        for axes, (name, runs) in zip(panels, groups.items(), strict=True):
            for i, (column, label) in enumerate((("train_loss", "training"), ("valid_loss", "validation"))):
                x, series = _by_epoch(runs, column)
                _curve(axes, x, series, label=label, color=COLORS[i], dashes=DASHES[i])
            axes.set_title(name)
            axes.set_xlabel("epoch")
            _whole_ticks(axes)
        panels[0].set_ylabel("loss")
        legend(figure, panels)
        return save(figure, path)


def plot_norms(groups: Mapping[str, Sequence[Run]], path: str | Path, *, title: str = "Gradient norm") -> list[Path]:
    """Gradient norm of each modality on a log scale, one panel a group, by step (by epoch without a `steps.csv`).

    Mean and band are those of the logarithm. A norm of zero has none and is left out.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.
    """
    _check(groups)
    by_step = all(any(name.startswith("norm/") for name in run.steps) for runs in groups.values() for run in runs)
    with style():
        figure, panels = _panels(len(groups), title)
        for axes, (name, runs) in zip(panels, groups.items(), strict=True):
            for i, modality in enumerate(runs[0].modalities):
                x, series = (_by_step if by_step else _by_epoch)(runs, f"norm/{modality}")
                _curve(
                    axes,
                    x,
                    series,
                    label=modality,
                    color=COLORS[i % len(COLORS)],
                    dashes=DASHES[i % len(DASHES)],
                    log=True,
                )
            axes.set_title(name)
            axes.set_xlabel("step" if by_step else "epoch")
            _log_scale(axes)
            _whole_ticks(axes)
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
    _check(groups)
    first = next(iter(groups.values()))[0]
    names = [m for m in first.modalities if f"valid/{m}/{metric}" in first.epochs]
    if not names:
        raise ValueError(
            f"No column `valid/<modality>/{metric}` in {first.path / 'metrics.csv'}: "
            "the model has no head of its own for each modality."
        )
    with style():
        figure, panels = _panels(len(names), title)
        for axes, modality in zip(panels, names, strict=True):
            for i, (name, runs) in enumerate(groups.items()):
                x, series = _by_epoch(runs, f"valid/{modality}/{metric}")
                _curve(axes, x, series, label=name, color=COLORS[i % len(COLORS)], dashes=DASHES[i % len(DASHES)])
            if alone and modality in alone:
                axes.axhline(alone[modality], color="#777777", linestyle=(0, (1, 2)), label="trained alone")
            axes.set_title(modality)
            axes.set_xlabel("epoch")
            _whole_ticks(axes)
        panels[0].set_ylabel(f"{metric} (validation)")
        legend(figure, panels)
        return save(figure, path)


def _check(groups: Mapping[str, Sequence[Run]]) -> None:
    empty = [name for name, runs in groups.items() if not runs]
    if not groups or empty:
        raise ValueError(f"Parameter `groups` should hold at least one run a group. Found none in {empty or 'it'}.")


def _by_epoch(runs: Sequence[Run], column: str) -> tuple[list[float], list[list[float]]]:
    """Epoch numbers and, for each run, the column; seeds that stopped early count only where they still ran."""
    series = [run.epochs.get(column, []) for run in runs]
    longest = max(runs, key=lambda run: len(run.epochs.get("epoch", [])))
    return longest.epochs.get("epoch", []), series


def _by_step(runs: Sequence[Run], column: str) -> tuple[list[float], list[list[float]]]:
    x: list[float] = max((run.steps.get("step", []) for run in runs), key=len)
    series = [run.steps.get(column, []) for run in runs]
    width = math.ceil(len(x) / MAX_POINTS) if x else 1
    return _binned(x, width), [_binned(values, width) for values in series]


def _binned(values: Sequence[float], width: int) -> list[float]:
    chunks = [[v for v in values[i : i + width] if math.isfinite(v)] for i in range(0, len(values), width)]
    return [math.fsum(chunk) / len(chunk) if chunk else math.nan for chunk in chunks]


def _curve(
    axes: Axes,
    x: Sequence[float],
    series: Sequence[Sequence[float]],
    *,
    label: str,
    color: str,
    dashes: str,
    log: bool = False,
) -> None:
    points: list[tuple[float, float, float, float]] = []
    for i, position in enumerate(x):
        values = [run[i] for run in series if i < len(run) and math.isfinite(run[i]) and (run[i] > 0 or not log)]
        if values:
            level = spread([math.log(value) for value in values] if log else values)
            bounds = (level.mean, level.mean - (level.sd or 0.0), level.mean + (level.sd or 0.0))
            mean, low, high = map(math.exp, bounds) if log else bounds
            points.append((position, mean, low, high))
    if not points:
        return
    where, middle, lower, upper = zip(*points, strict=True)
    marker = "o" if len(points) == 1 else None
    axes.plot(where, middle, label=label, color=color, linestyle=dashes, linewidth=2, marker=marker)
    if lower != upper:
        axes.fill_between(where, lower, upper, color=color, alpha=0.15, linewidth=0)


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.2, 3.9 * count), 3.9), layout="constrained")
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
    grid = figure.subplots(1, count, sharey=True, squeeze=False)
    return figure, list(grid[0])


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _log_scale(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())

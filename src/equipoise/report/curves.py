"""Curves by step or epoch with a band over seeds, and the panels they stand in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from equipoise.report.runs import Run
from equipoise.report.tables import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 120  # a longer curve of steps is averaged in equal bins, else noise hides the trend


def check_groups(groups: Mapping[str, Sequence[Run]]) -> None:
    """Refuse no groups, and a group without runs.

    Raises:
        ValueError: either.
    """
    empty = [name for name, runs in groups.items() if not runs]
    if not groups or empty:
        raise ValueError(f"Parameter `groups` should hold at least one run a group. Found none in {empty or 'it'}.")


def by_epoch(runs: Sequence[Run], column: str) -> tuple[list[float], list[list[float]]]:
    """Epoch numbers and, for each run, the column; seeds that stopped early count only where they still ran."""
    series = [run.epochs.get(column, []) for run in runs]
    longest = max(runs, key=lambda run: len(run.epochs.get("epoch", [])))
    return longest.epochs.get("epoch", []), series


def by_step(runs: Sequence[Run], column: str) -> tuple[list[float], list[list[float]]]:
    """Step numbers and, for each run, the column, both averaged in bins where they are many."""
    x: list[float] = max((run.steps.get("step", []) for run in runs), key=len)
    series = [run.steps.get(column, []) for run in runs]
    width = math.ceil(len(x) / MAX_POINTS) if x else 1
    return binned(x, width), [binned(values, width) for values in series]


def binned(values: Sequence[float], width: int) -> list[float]:
    """Means of stretches of so many values; of a stretch without a finite one NaN."""
    chunks = [[v for v in values[i : i + width] if math.isfinite(v)] for i in range(0, len(values), width)]
    return [math.fsum(chunk) / len(chunk) if chunk else math.nan for chunk in chunks]


def curve(
    axes: Axes,
    x: Sequence[float],
    series: Sequence[Sequence[float]],
    *,
    label: str,
    color: str,
    dashes: str,
    log: bool = False,
    dots: bool = False,
) -> None:
    """The mean over seeds with a band of one standard deviation; of logarithms, with ``log``, and without zeros.

    Points are joined over those that are missing; ``dots`` shows where they are.
    """
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
    marker = "o" if dots or len(points) == 1 else None
    axes.plot(where, middle, label=label, color=color, linestyle=dashes, linewidth=2, marker=marker, markersize=5)
    if lower != upper:
        axes.fill_between(where, lower, upper, color=color, alpha=0.15, linewidth=0)


def panels_in_row(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with a title and so many panels on a common scale."""
    figure, (row,) = panels_in_grid(1, count, title)
    return figure, row


def panels_in_grid(rows: int, columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    """The same with several rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.2, 3.9 * columns), 1.1 + 2.8 * rows), layout="constrained")
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
    grid = figure.subplots(rows, columns, sharex=rows > 1, sharey=True, squeeze=False)
    return figure, [list(row) for row in grid]


def whole_ticks(axes: Axes) -> None:
    """Few ticks on x, all whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def log_scale(axes: Axes) -> None:
    """A log scale on y with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())

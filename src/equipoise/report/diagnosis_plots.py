"""The pictures of a diagnosis as files, for a paper or a talk; the page draws its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.diagnostics.section import Curves, Picture, Scatter, Section
from equipoise.report.figures import COLORS, DASHES, legend, save, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_sections(sections: Sequence[Section], folder: str | Path) -> list[Path]:
    """Draw every picture and chart of a report.

    Args:
        sections: of the report (`equipoise.diagnostics.sections.sections_of`).
        folder: for the files, named after the section.

    Returns:
        An SVG and a PNG for each.

    Raises:
        OSError: a file can't be written.
    """
    written: list[Path] = []
    for section in sections:
        drawn = [*([section.picture] if section.picture is not None else []), *section.charts]
        for number, each in enumerate(drawn):
            name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") + (f"-{number + 1}" if number else "")
            with style():
                written += save(_figure(each), Path(folder) / name)
    return written


def _figure(drawn: Picture | Curves | Scatter) -> Figure:
    if isinstance(drawn, Picture):
        return _intervals(drawn)
    return _curves(drawn) if isinstance(drawn, Curves) else _panels(drawn)


def _intervals(picture: Picture) -> Figure:
    from matplotlib.figure import Figure

    rows = picture.points
    figure = Figure(figsize=(6.4, 1.1 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for row, each in enumerate(rows):
        low, value, high = (picture.scale * number for number in (each.low, each.value, each.high))
        axes.plot([low, high], [row, row], color=COLORS[0], linewidth=2)
        axes.plot([value], [row], "o", color=COLORS[0], markersize=6)
        axes.annotate(each.shown, (1.02, row), xycoords=("axes fraction", "data"), va="center")
    axes.axvline(picture.scale * picture.mark, color=COLORS[1], linestyle="--", label=picture.marked)
    axes.set_yticks(range(len(rows)), [each.label for each in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(picture.title)
    legend(figure, [axes])
    return figure


def _curves(curves: Curves) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for number, line in enumerate(curves.lines):
        x, y = zip(*line.points, strict=True) if line.points else ((), ())
        axes.plot(
            x,
            [curves.scale * value for value in y],
            color=COLORS[number % len(COLORS)],
            linestyle=DASHES[number % len(DASHES)],
            marker="o",
            markersize=4,
            label=line.label,
        )
    if curves.mark is not None:
        axes.axhline(curves.scale * curves.mark, color="#777777", linewidth=1, linestyle=":", label=curves.marked)
    axes.set(xlabel=curves.across, ylabel=curves.title)
    legend(figure, [axes])
    return figure


def _panels(scatter: Scatter) -> Figure:
    from matplotlib.figure import Figure

    count = len(scatter.panels)
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(5.2, 2.4 * columns), 1.1 + 2.6 * rows), layout="constrained")
    figure.suptitle(scatter.title, x=0.02, ha="left", fontweight="bold")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, scatter.panels, strict=False):
        axes.set_title(f"{panel.title}\n{panel.shown}")
        axes.set(xticks=[], yticks=[])
        for number, group in enumerate(scatter.groups):
            mine = [at for at, of in zip(panel.points, panel.groups, strict=True) if of == number]
            color = COLORS[number % len(COLORS)]
            axes.scatter(
                [x for x, _ in mine], [y for _, y in mine], s=8, color=color, alpha=0.7, linewidths=0, label=group
            )
    for axes in grid[count:]:
        axes.remove()
    legend(figure, grid[:count])
    return figure

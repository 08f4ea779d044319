"""Average ranks of methods over datasets on one line, with bars over those that are not told apart (Demšar, 2006)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.report.figures import COLORS, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.3  # inches from one label to the next
BAR = 0.16  # and from one bar to the next
MOST_NUMBERS = 15  # on the rank axis: more would run into each other
TOP = 0.75  # from the rank axis to the edge above: numbers and the ruler


def plot_critical_difference(ranking: Mapping[str, Any], path: str | Path, *, title: str = "") -> list[Path]:
    """Draw a ranking: the best to the left, its label first; a thick bar joins methods closer than the difference.

    Args:
        ranking: `equipoise.experiments.ranks.Ranking` as plain values.
        path: where to write, any suffix.
        title: printed above.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.

    Raises:
        ValueError: fewer than two methods.
    """
    from matplotlib.figure import Figure

    ranks: dict[str, float] = dict(sorted(ranking["ranks"].items(), key=lambda item: item[1]))
    if len(ranks) < 2:
        raise ValueError(f"Parameter `ranking` should hold two or more methods. Found {len(ranks)}.")
    bars = _levels([(ranks[group[0]], ranks[group[-1]]) for group in ranking["groups"]])
    depth = BAR * (1 + max((level for _, _, level in bars), default=-1) + 1)
    left = (len(ranks) + 1) // 2
    below = depth + ROW * left + 0.1
    with style():
        figure = Figure(figsize=(7.5, below + TOP + 0.85), layout="constrained")
        axes = figure.add_subplot()
        axes.axis("off")
        axes.set_xlim(0.2 - 0.32 * len(ranks), 0.8 + 1.32 * len(ranks))
        axes.set_ylim(-below, TOP)
        figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
        _axis(axes, len(ranks), ranking["difference"])
        for low, high, level in bars:
            y = -BAR * (level + 1)
            axes.plot([low - 0.04, high + 0.04], [y, y], color=COLORS[1], linewidth=4, solid_capstyle="butt")
        for i, (name, rank) in enumerate(ranks.items()):
            on_left = i < left
            place = i if on_left else len(ranks) - 1 - i
            y = -depth - ROW * (place + 0.5)
            end = 0.75 if on_left else len(ranks) + 0.25
            axes.plot([rank, rank, end], [0, y, y], color="#555555", linewidth=1)
            axes.plot([rank], [0], marker="o", markersize=4, color=COLORS[0])
            axes.text(
                end - 0.08 if on_left else end + 0.08,
                y,
                f"{name} ({rank:.2f})",
                ha="right" if on_left else "left",
                va="center",
            )
        figure.supxlabel(
            f"average rank over {len(ranking['datasets'])} datasets (1 is best); bars join methods that are not told "
            "apart",
            fontsize=10,
        )
        return save(figure, path)


def _axis(axes: Axes, count: int, difference: float) -> None:
    axes.plot([1, count], [0, 0], color="black", linewidth=1.2)
    for rank in range(1, count + 1):
        axes.plot([rank, rank], [0, 0.08], color="black", linewidth=1.2)
        if (rank - 1) % math.ceil(count / MOST_NUMBERS) == 0:
            axes.text(rank, 0.12, str(rank), ha="center", va="bottom")
    # A ruler longer than the axis would say no more than that nothing can be told apart.
    shown = min(difference, count - 1.0)
    more = " (longer than the axis)" if difference > shown else ""
    axes.plot([1, 1 + shown], [0.46, 0.46], color=COLORS[1], linewidth=2)
    for end in (1, 1 + shown):
        axes.plot([end, end], [0.41, 0.51], color=COLORS[1], linewidth=2)
    axes.text(1 + shown / 2, 0.53, f"critical difference {difference:.2f}{more}", ha="center", va="bottom")


def _levels(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """Each span with the first level on which it touches no other."""
    ends: list[float] = []
    found: list[tuple[float, float, int]] = []
    for low, high in spans:
        level = next((i for i, end in enumerate(ends) if end + 0.1 < low), len(ends))
        ends[level : level + 1] = [high]
        found.append((low, high, level))
    return found

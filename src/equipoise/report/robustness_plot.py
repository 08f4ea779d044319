"""One picture of all that `equipoise robustness` measures: small multiples on a common scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.diagnostics.robustness import EVERY
from equipoise.metrics import better
from equipoise.report.figures import COLORS, DASHES, legend, save, style
from equipoise.report.robustness import Curve, of_text
from equipoise.report.tables import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"modalities": "samples without it, %", "frames": "frames missing, %", "noise": "noise, std of the feature"}
TITLES = {"modalities": "{of} missing", "frames": "{of}: frames missing", "noise": "{of}: noise"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_robustness(
    found: Sequence[Curve],
    subsets: Mapping[str, Mapping[str, Spread | None]],
    path: str | Path,
    *,
    metric: str,
    title: str,
) -> list[Path]:
    """A row of panels a corruption, one panel a modality; last, the score of every subset of the modalities.

    Bands and bars are one standard deviation over seeds (over draws, where a run has one seed).

    Args:
        found: from `equipoise.report.robustness.curves`.
        subsets: from `equipoise.report.robustness.subset_values`.
        path: where to write, any suffix.
        metric: the metric's name.
        title: printed above the panels.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.
    """
    from matplotlib.figure import Figure

    kinds = [kind for kind in AXES if any(curve.kind == kind for curve in found)]
    columns = [of for of in dict.fromkeys(curve.of for curve in found) if of != EVERY]
    columns += [EVERY] if any(curve.of == EVERY for curve in found) else []
    runs = list(subsets)
    several = max(len(values) for values in subsets.values()) > 1
    height, width = len(kinds) + several, max(1, len(columns))
    with style():
        figure = Figure(figsize=(max(5.4, 0.8 + 2.7 * width), 1.2 + 2.3 * height), layout="constrained")
        figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
        grid = figure.add_gridspec(height, width)
        panels: list[Axes] = []
        for row, kind in enumerate(kinds):
            left = True
            for column, of in enumerate(columns):
                own = [curve for curve in found if (curve.kind, curve.of) == (kind, of)]
                if not own:
                    continue
                axes = figure.add_subplot(grid[row, column], sharey=panels[0] if panels else None)
                for curve in own:
                    _draw(axes, curve, runs.index(curve.run))
                axes.set_title(TITLES[kind].format(of=of_text(kind, of)))
                axes.set_xlabel(AXES[kind])
                axes.tick_params(labelleft=left)
                if left:
                    axes.set_ylabel(_label(metric))
                left = False
                panels.append(axes)
        if several:
            axes = figure.add_subplot(grid[height - 1, :], sharey=panels[0] if panels else None)
            _draw_subsets(axes, subsets)
            axes.set_ylabel(_label(metric))
            panels.append(axes)
        legend(figure, panels)
        return save(figure, path)


def _draw(axes: Axes, curve: Curve, number: int) -> None:
    scale = 1.0 if curve.kind == "noise" else 100.0
    points = [(scale * level, value) for level, value in zip(curve.levels, curve.values, strict=True) if value]
    x, values = [level for level, _ in points], [value for _, value in points]
    middle, band = [value.mean for value in values], [value.sd or 0.0 for value in values]
    axes.plot(x, middle, label=curve.run, markersize=4, linewidth=1.8, **_look(number))
    low, high = ([m + sign * b for m, b in zip(middle, band, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=COLORS[number % len(COLORS)], alpha=0.15, linewidth=0)


def _draw_subsets(axes: Axes, subsets: Mapping[str, Mapping[str, Spread | None]]) -> None:
    names = list(dict.fromkeys(name for values in subsets.values() for name in values))
    for number, (run, values) in enumerate(subsets.items()):
        offset = 0.12 * (number - (len(subsets) - 1) / 2)
        points = [(names.index(name) + offset, value) for name, value in values.items() if value]
        axes.errorbar(
            [x for x, _ in points],
            [value.mean for _, value in points],
            yerr=[value.sd or 0.0 for _, value in points],
            label=run,
            capsize=3,
            markersize=5,
            **{**_look(number), "linestyle": "none"},
        )
    axes.set_xticks(range(len(names)), [name.replace("+", " +\n") for name in names])
    axes.set_title("what is left of every sample")
    axes.set_xlim(-0.5, len(names) - 0.5)


def _look(number: int) -> dict[str, Any]:
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _label(metric: str) -> str:
    return f"{metric}\n({'lower' if better(metric) == 'min' else 'higher'} is better)"

"""Two-dimensional maps of what models make of samples: one row a model, one panel a representation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.report.figures import COLORS, legend, save, style

if TYPE_CHECKING:
    import numpy.typing as npt

Maps = Mapping[str, tuple["npt.NDArray", "npt.NDArray"]]  # type: ignore[type-arg]


def plot_maps(models: Mapping[str, Maps], path: str | Path, *, title: str) -> list[Path]:
    """Draw every map of every model; colours are groups of samples, the same in all panels.

    Args:
        models: ``{model: {representation: (points [N, 2], group of each sample [N], as text)}}``.
        path: the picture, without a suffix.
        title: above all.

    Returns:
        The SVG and the PNG.

    Raises:
        ValueError: no map.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for maps in models.values() for name in maps))
    if not names:
        raise ValueError("Parameter `models` should hold at least one map. Found none.")
    groups = sorted({str(group) for maps in models.values() for _, each in maps.values() for group in each})
    with style():
        figure = Figure(figsize=(max(5.2, 2.3 * len(names)), 1.2 + 2.3 * len(models)), layout="constrained")
        figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
        grid = figure.subplots(len(models), len(names), squeeze=False)
        for row, (model, maps) in zip(grid, models.items(), strict=True):
            row[0].set_ylabel(model)
            for axes, name in zip(row, names, strict=True):
                axes.set_title(name)
                axes.set(xticks=[], yticks=[])
                for number, group in enumerate(groups) if name in maps else ():
                    points, of = maps[name]
                    mine = points[of == group]
                    color = COLORS[number % len(COLORS)]
                    axes.scatter(mine[:, 0], mine[:, 1], s=8, color=color, alpha=0.7, linewidths=0, label=group)
        legend(figure, list(grid.flat))
        return save(figure, path)

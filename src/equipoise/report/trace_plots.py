"""Pictures of what is recorded of gradients: dominance, factors, directions.

Groups of runs, bands and files as in `equipoise.report.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from equipoise.functional.conflict import dominance_ratios
from equipoise.report.curves import (
    MAX_POINTS,
    binned,
    by_epoch,
    by_step,
    check_groups,
    curve,
    log_scale,
    panels_in_grid,
    panels_in_row,
    whole_ticks,
)
from equipoise.report.figures import COLORS, DASHES, legend, save, style
from equipoise.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Groups = Mapping[str, Sequence[Run]]
LEVEL = {"color": "#777777", "linewidth": 1.0, "zorder": 1}


def plot_dominance(groups: Groups, path: str | Path, *, title: str = "Dominance") -> list[Path]:
    """Each modality's gradient norm over the mean of the others', by step on a log scale: above 1 it leads.

    One panel a group, and below it one of the norms that its balancer left, where these are on record. Mean, bins and
    band are those of the logarithm.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.

    Raises:
        ValueError: a group without runs, or runs without norms of two modalities.
    """
    check_groups(groups)
    for name, runs in groups.items():
        if any(len(run.modalities) < 2 or not _known(run, "norm") for run in runs):
            raise ValueError(
                "Parameter `groups` should hold runs with gradient norms of two modalities or more, by step. "
                f"Found {name!r} without."
            )
    left = {name for name, runs in groups.items() if all(_known(run, "norm_after") for run in runs)}
    with style():
        figure, grid = panels_in_grid(2 if left else 1, len(groups), title)
        for column, (name, runs) in enumerate(groups.items()):
            last = grid[-1][column] if name in left else grid[0][column]
            _ratio_curves(grid[0][column], runs, "norm")
            grid[0][column].set_title(name)
            if name in left:
                _ratio_curves(last, runs, "norm_after")
                last.set_title(f"{name}, as the balancer left them")
            elif left:
                grid[1][column].set_visible(False)
                last.tick_params(labelbottom=True)
            last.set_xlabel("step")
        for row in grid:
            shown = next(axes for axes in row if axes.get_visible())
            shown.set_ylabel("norm / mean of the others'")
            shown.tick_params(labelleft=True)
        legend(figure, grid[0])
        return save(figure, path)


def plot_factors(groups: Groups, path: str | Path, *, title: str = "Factors applied") -> list[Path]:
    """What the balancer multiplied each modality's gradients by, by step; one panel a group that has factors.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.

    Raises:
        ValueError: a group without runs, or no group with factors.
    """
    check_groups(groups)
    having = {name: runs for name, runs in groups.items() if all(_known(run, "factor") for run in runs)}
    if not having:
        raise ValueError("Parameter `groups` should hold runs with factors (`factor/<modality>`). Found none.")
    with style():
        figure, panels = panels_in_row(len(having), title)
        for axes, (name, runs) in zip(panels, having.items(), strict=True):
            for i, modality in enumerate(runs[0].modalities):
                x, series = by_step(runs, f"factor/{modality}")
                curve(axes, x, series, label=modality, color=_color(i), dashes=_dashes(i))
            axes.axhline(1.0, **LEVEL)  # type: ignore[arg-type]
            _finish(axes, name, "step")
        panels[0].set_ylabel("factor")
        legend(figure, panels)
        return save(figure, path)


def plot_directions(groups: Groups, path: str | Path, *, title: str = "Own and joint gradient") -> list[Path]:
    """Cosine between each modality's own and the joint gradient by epoch, one panel a group; below 0 they conflict.

    Returns:
        The files written: `path` with the suffixes `.svg` and `.png`.

    Raises:
        ValueError: a group without runs, or no epoch of any run with a cosine.
    """
    check_groups(groups)
    cosines = [run.epochs.get(f"direction/{m}", []) for runs in groups.values() for run in runs for m in run.modalities]
    if not any(math.isfinite(value) for values in cosines for value in values):
        raise ValueError(
            "Parameter `groups` should hold runs with cosines (`direction/<modality>`). Found none: train them with "
            "`train.direction_every` at most the batches of all epochs."
        )
    with style():
        figure, panels = panels_in_row(len(groups), title)
        for axes, (name, runs) in zip(panels, groups.items(), strict=True):
            for i, modality in enumerate(runs[0].modalities):
                x, series = by_epoch(runs, f"direction/{modality}")
                curve(axes, x, series, label=modality, color=_color(i), dashes=_dashes(i), dots=True)
            axes.axhline(0.0, **LEVEL)  # type: ignore[arg-type]
            _finish(axes, name, "epoch")
        low, high = panels[0].get_ylim()
        panels[0].set_ylim(max(low, -1.05), min(high, 1.05))  # a band may reach beyond what a cosine can
        panels[0].set_ylabel("cosine")
        legend(figure, panels)
        return save(figure, path)


def _ratio_curves(axes: Axes, runs: Sequence[Run], lead: str) -> None:
    ratios = [_ratios(run, lead) for run in runs]
    x = max((each[0] for each in ratios), key=len)
    for i, modality in enumerate(runs[0].modalities):
        series = [each[1][modality] for each in ratios]
        curve(axes, x, series, label=modality, color=_color(i), dashes=_dashes(i), log=True)
    axes.axhline(1.0, **LEVEL)  # type: ignore[arg-type]
    whole_ticks(axes)
    log_scale(axes)


def _ratios(run: Run, lead: str) -> tuple[list[float], dict[str, list[float]]]:
    """Steps, and each modality's dominance ratio at these: geometric means of bins where steps are many."""
    columns = [run.steps[f"{lead}/{modality}"] for modality in run.modalities]
    norms = torch.tensor(columns, dtype=torch.float64).T
    known = norms.isfinite().all(dim=1)
    logs = torch.vmap(dominance_ratios)(norms[known]).log()
    x = [step for step, is_known in zip(run.steps["step"], known.tolist(), strict=True) if is_known]
    width = math.ceil(len(x) / MAX_POINTS) or 1
    found = {name: binned(logs[:, i].tolist(), width) for i, name in enumerate(run.modalities)}
    return binned(x, width), {name: [math.exp(value) for value in values] for name, values in found.items()}


def _known(run: Run, lead: str) -> bool:
    columns = [run.steps.get(f"{lead}/{modality}", []) for modality in run.modalities]
    return bool(columns) and all(any(math.isfinite(value) for value in column) for column in columns)


def _finish(axes: Axes, name: str, x: str) -> None:
    axes.set_title(name)
    axes.set_xlabel(x)
    whole_ticks(axes)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _dashes(i: int) -> str:
    return DASHES[i % len(DASHES)]

"""From the rows of `equipoise.diagnostics.robustness` to curves over seeds and to tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from equipoise.diagnostics.robustness import EVERY
from equipoise.report.tables import Cell, Spread, Table, spread

Groups = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
"""``{run: [rows of a seed, ...]}``."""

WORDS = {"modalities": "{of} missing in samples", "frames": "{of} frames missing", "noise": "noise on {of}"}


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over the levels of one corruption, the first of them 0: nothing is corrupted.

    Attributes:
        run: the run's name.
        kind: ``"modalities"``, ``"frames"`` or ``"noise"``.
        of: the modality, or all.
        levels: rising from 0.
        values: at each level; None where the metric is undefined.
        mean: over the levels above 0.
    """

    run: str
    kind: str
    of: str
    levels: tuple[float, ...]
    values: tuple[Spread | None, ...]
    mean: Spread | None


def curves(groups: Groups, metric: str) -> list[Curve]:
    """Every curve of every run: the mean over draws, and its spread over seeds (over draws, for a single seed)."""
    found: list[Curve] = []
    for run, seeds in groups.items():
        for kind, of in dict.fromkeys((row["kind"], row["of"]) for row in seeds[0] if row["kind"] != "subset"):
            levels = sorted({row["level"] for row in seeds[0] if (row["kind"], row["of"]) == (kind, of)})
            table = [[_draws(rows, metric, kind, of, level) for level in levels] for rows in seeds]
            values = [_over([at[i] for at in table]) for i in range(len(levels))]
            by_seed = [[fmean(draws) for draws in zip(*at, strict=True)] for at in table]
            whole = subset_values({run: seeds}, metric)[run]
            first = next(iter(whole.values()))
            found.append(Curve(run, kind, of, (0.0, *levels), (first, *values), _over(by_seed)))
    return found


def subset_values(groups: Groups, metric: str) -> dict[str, dict[str, Spread | None]]:
    """``{run: {subset: value}}`` with the modalities kept as names, the largest subset first."""
    return {
        run: {
            row["of"]: _over([_draws(rows, metric, "subset", row["of"], None) for rows in seeds])
            for row in seeds[0]
            if row["kind"] == "subset"
        }
        for run, seeds in groups.items()
    }


def summary_table(groups: Groups, metric: str, *, title: str, notes: Sequence[str] = ()) -> Table:
    """One column a run; rows for every subset, and for each corruption the mean over its levels and the last."""
    runs = list(groups)
    rows: list[tuple[Cell, ...]] = []
    kept = subset_values(groups, metric)
    whole = {run: next(iter(values)) for run, values in kept.items()}
    rows.append(("nothing missing", "", *(kept[run][whole[run]] for run in runs)))
    for subset in dict.fromkeys(name for run in runs for name in kept[run]):
        if any(subset != whole[run] and subset in kept[run] for run in runs):
            rows.append((f"only {subset.replace('+', ' and ')}", "", *(kept[run].get(subset) for run in runs)))
    found = curves(groups, metric)
    for kind, of in dict.fromkeys((curve.kind, curve.of) for curve in found):
        own = {curve.run: curve for curve in found if (curve.kind, curve.of) == (kind, of)}
        levels = next(iter(own.values())).levels
        what = WORDS[kind].format(of=of_text(kind, of))
        last = level_text(kind, levels[-1])
        if len(levels) > 2:
            over = f"mean of {level_text(kind, levels[1])} to {last}"
            rows.append((what, over, *(own[run].mean if run in own else None for run in runs)))
        rows.append((what, last, *(own[run].values[-1] if run in own else None for run in runs)))
    return Table(title, ("", "level", *runs), tuple(rows), tuple(notes))


def points_table(groups: Groups, metric: str, *, title: str) -> Table:
    """Every point of every curve and every subset, a row each: what the picture is drawn from."""
    rows: list[tuple[Cell, ...]] = []
    for run, values in subset_values(groups, metric).items():
        rows += [(run, "subset", subset, None, value) for subset, value in values.items()]
    for curve in curves(groups, metric):
        for level, value in zip(curve.levels, curve.values, strict=True):
            rows.append((curve.run, curve.kind, curve.of, level, value))
    return Table(title, ("run", "kind", "of", "level", metric), tuple(rows))


def of_text(kind: str, of: str) -> str:
    """Which modality a corruption hits: by name, all of them, or any of them at random."""
    return "any" if kind == "modalities" and of == EVERY else of


def level_text(kind: str, level: float) -> str:
    """A rate in per cent, or a deviation.

    >>> level_text("frames", 0.3), level_text("noise", 0.5)
    ('30 %', '0.5 std')
    """
    return f"{level:g} std" if kind == "noise" else f"{100 * level:g} %"


def _draws(rows: Sequence[Mapping[str, Any]], metric: str, kind: str, of: str, level: float | None) -> list[float]:
    found = [row["metrics"][metric] for row in rows if (row["kind"], row["of"], row["level"]) == (kind, of, level)]
    return [math.nan if value is None else value for value in found]


def _over(seeds: Sequence[Sequence[float]]) -> Spread | None:
    """Each seed's mean over draws, with their spread; for a single seed the spread over its draws."""
    values = [fmean(draws) for draws in seeds] if len(seeds) > 1 else list(seeds[0])
    return spread(values) if all(math.isfinite(value) for value in values) else None

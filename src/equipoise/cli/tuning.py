"""The trials of `equipoise compare`, before the comparison itself."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equipoise.experiments.cell import Cell
    from equipoise.experiments.pool import Asked
    from equipoise.experiments.tuner import Tuner

Told = Callable[["Cell", str, float], None]
Ask = Callable[["Cell"], "Asked"]
Run = Callable[[Sequence["Cell"], Told, "Ask | None"], None]


def run_trials(tuner: Tuner, stand_ins: Sequence[Cell], run: Run, told: Told) -> None:
    """Try settings until every study has all of its trials."""
    while batch := tuner.advance():
        shown = standing_in(batch, stand_ins, told)

        def tell(cell: Cell, what: str, seconds: float, shown: Told = shown) -> None:
            tuner.heard(cell, what)
            shown(cell, what, seconds)

        run(list({cell.id: cell for cell in batch.values()}.values()), tell, tuner.ask)


def run_finals(tuner: Tuner, stand_ins: Sequence[Cell], run: Run, told: Told) -> None:
    """Train with the settings chosen, on all seeds."""
    slots = {(cell.kind, cell.seed): cell.id for cell in stand_ins}
    finals = tuner.finals()
    batch = {slots.get((cell.kind, cell.seed), cell.id): cell for cell in finals}
    run(list({cell.id: cell for cell in finals}.values()), standing_in(batch, stand_ins, told), None)


def standing_in(batch: Mapping[str, Cell], stand_ins: Sequence[Cell], told: Told) -> Told:
    """Tell of each training by the names of those that stood in for it."""
    slots = {cell.id: cell for cell in stand_ins}
    names: dict[str, list[Cell]] = {}
    for slot, cell in batch.items():
        names.setdefault(cell.id, []).append(slots.get(slot, cell))

    def tell(cell: Cell, what: str, seconds: float) -> None:
        for each in names.get(cell.id, [cell]):
            told(each, what, seconds)

    return tell


def write_trials(tuner: Tuner, path: Path) -> Path:
    """Every trial as a row of CSV."""
    from equipoise.training.files import replace_file

    rows = tuner.record()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["dataset"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "settings": json.dumps(row["settings"])} for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.getvalue().encode())
    return path

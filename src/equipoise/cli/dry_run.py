"""What a grid would run and how long it would take, known by trying out one cell of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from equipoise.cli.console import print_json, print_table

if TYPE_CHECKING:
    from equipoise.experiments.cell import Cell
    from equipoise.experiments.clock import Clock

TASTE_SECONDS = 2.0


def may_fail(cell: Cell) -> bool:
    """Some models need two modalities, and some have no heads for a loss of each: a finding about the model."""
    return cell.role == "alone" or (cell.role == "multi_loss" and cell.method.startswith("multi-loss"))


def try_out(cells: Sequence[Cell], clock: Clock, limit: float) -> None:
    """Try one cell of each kind that has never finished: what can't run is told before anything runs."""
    from equipoise.cli.progress import progress
    from equipoise.experiments.trial import estimate_seconds

    kinds = {cell.kind: cell for cell in reversed(cells) if cell.kind not in clock.measured}
    with progress(1) as start:
        update = start("trying out")
        for count, cell in enumerate(reversed(kinds.values()), start=1):
            try:
                clock.tried[cell.kind] = estimate_seconds(cell, limit)
            except ValueError:
                if not may_fail(cell):
                    raise
            update(count, len(kinds), {})


def dry_run(cells: Sequence[Cell], waiting: Sequence[Cell], clock: Clock, *, json: bool) -> int:
    """Print the cells, and how long those that have no result will take."""
    from equipoise.experiments.clock import spoken
    from equipoise.report.tables import Table, to_records

    try_out(waiting, clock, TASTE_SECONDS)
    todo = {cell.id for cell in waiting}
    rows = []
    for kind in dict.fromkeys(cell.kind for cell in cells):
        of_kind = [cell for cell in cells if cell.kind == kind]
        left = [cell for cell in of_kind if cell.id in todo]
        each = clock.seconds(of_kind[0])
        first = of_kind[0]
        name = f"{first.method}{', trial' if first.split == 'valid' else ''}"
        rows.append((first.dataset, first.model, name, len(of_kind), len(left), spoken(each)))
    total = clock.remaining(waiting)
    note = (
        f"{len(cells)} cells, {len(waiting)} to run, about {spoken(total)} with {clock.jobs} at once"
        f"{'' if total is None else f' ({total / 3600:.2f} hours)'}; less where training stops early."
    )
    table = Table("What would run", ("dataset", "model", "method", "cells", "to run", "each"), tuple(rows), (note,))
    if json:
        ids = [{**cell.record(), "to_run": cell.id in todo} for cell in cells]
        print_json({"table": to_records(table), "hours": None if total is None else total / 3600, "cells": ids})
    else:
        print_table(table)
    return 0

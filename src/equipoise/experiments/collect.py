"""The rows that a store holds for the cells of a grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from equipoise.experiments.cell import Cell
from equipoise.experiments.ensemble import ensemble_rows
from equipoise.experiments.rows import Row, read_row
from equipoise.experiments.store import Store


def collect_rows(cells: Sequence[Cell], store: Store) -> list[Row]:
    """A row for every cell that has a result, under its names, and those of the ensembles of modalities alone.

    Raises:
        FileNotFoundError: the run directory of one is gone.
        ValueError: one whose predictions are not those of its figures.
    """
    done = store.ids()
    rows = [
        read_row(
            store.run_dir(cell.id),
            method=cell.method,
            role=cell.role,
            dataset=cell.dataset,
            model=cell.model,
            trials=cell.trials,
            against=cell.against,
        )
        for cell in cells
        if cell.id in done
    ]
    by_id = dict(zip((cell.id for cell in cells if cell.id in done), rows, strict=True))
    return [*rows, *ensemble_rows(cells, by_id, store)]


def collect_errors(cells: Iterable[Cell], store: Store) -> dict[str, str]:
    """``{"dataset, model, method, seed N": error}`` of those that failed."""
    failed = store.ids("failed")
    return {f"{cell.kind}, seed {cell.seed}": store.read(cell.id)["error"] for cell in cells if cell.id in failed}

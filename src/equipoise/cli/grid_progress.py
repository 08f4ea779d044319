"""How far a whole grid is, and the time to go, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from equipoise.cli.progress import status

if TYPE_CHECKING:
    from equipoise.experiments.cell import Cell
    from equipoise.experiments.clock import Clock

Told = Callable[["Cell", str, float], None]


@contextmanager
def grid_progress(cells: Sequence[Cell], waiting: Sequence[Cell], clock: Clock) -> Iterator[Told]:
    """Show what becomes of cells: a bar on a terminal; elsewhere a line every five seconds, and one at the end.

    Args:
        cells: of the whole grid.
        waiting: those of them that will run now.
        clock: what is known of their times; it learns from those that finish.
    """
    left = {cell.id: cell for cell in waiting}
    begun: dict[str, float] = {}
    failed = 0

    def line() -> str:
        now = time.monotonic()
        seconds = clock.remaining(list(left.values()), {id: now - since for id, since in begun.items()})
        return said(len(cells) - len(left), len(cells), failed, seconds, clock.guessed(left.values()))

    with status(len(cells), lambda: len(cells) - len(left), line) as show:

        def told(cell: Cell, what: str, seconds: float) -> None:
            nonlocal failed
            if what == "start":
                begun[cell.id] = time.monotonic()
            else:
                begun.pop(cell.id, None)
            if what in ("done", "failed", "elsewhere"):
                left.pop(cell.id, None)
                failed += what == "failed"
            if what == "done":
                clock.add(cell, seconds)
            show(what == "failed" or not left)

        yield told


def said(done: int, total: int, failed: int, seconds: float | None, guessed: int) -> str:
    """One line about a grid.

    >>> said(3, 12, 1, 5400.0, 4)
    '3/12 cells, 1 failed, about 1 h 30 min to go (4 cells of kinds not seen yet are guessed)'
    >>> said(0, 12, 0, None, 12)
    '0/12 cells, time to go unknown until one has finished'
    """
    from equipoise.experiments.clock import spoken

    parts = [f"{done}/{total} cells"] + ([f"{failed} failed"] if failed else [])
    if done == total:
        return ", ".join(parts)
    if seconds is None:
        return ", ".join([*parts, "time to go unknown until one has finished"])
    doubt = f" ({guessed} cells of kinds not seen yet are guessed)" if guessed else ""
    return ", ".join([*parts, f"about {spoken(seconds)} to go{doubt}"])

"""How long a grid will still take, and what is not known about that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from equipoise.experiments.cell import Cell
from equipoise.experiments.store import Store

OVERDUE = 0.25
"""A cell that has run for longer than its kind does is expected to take this share of its time again."""


@dataclass
class Clock:
    """Seconds that cells have taken, and from them what the others will take.

    Cells that differ in the seed alone are of one kind and take about equally long. A kind of which none has finished
    is reckoned by the mean over those of its dataset and model, then by that over all; `guessed` says how many are.

    Attributes:
        jobs: processes at once.
        measured: seconds of finished cells by kind.
        tried: seconds that a short trial of a kind foretells.
    """

    jobs: int = 1
    measured: dict[str, list[float]] = field(default_factory=dict)
    tried: dict[str, float] = field(default_factory=dict)

    def add(self, cell: Cell, seconds: float) -> None:
        """A cell has finished."""
        self.measured.setdefault(cell.kind, []).append(seconds)

    def seconds(self, cell: Cell) -> float | None:
        """What a cell will take; None where nothing is known."""
        if cell.kind in self.measured:
            return fmean(self.measured[cell.kind])
        if cell.kind in self.tried:
            return self.tried[cell.kind]
        like = f"{cell.dataset}, {cell.model}, "
        near = [fmean(each) for kind, each in self.measured.items() if kind.startswith(like)]
        near = near or [each for kind, each in self.tried.items() if kind.startswith(like)]
        far = [fmean(each) for each in self.measured.values()] or list(self.tried.values())
        return fmean(near) if near else fmean(far) if far else None

    def remaining(self, cells: Sequence[Cell], running: Mapping[str, float] | None = None) -> float | None:
        """Seconds until all of these are done; None where nothing is known.

        Args:
            cells: not finished yet.
            running: seconds since they were started, by id.
        """
        left: list[float] = []
        for cell in cells:
            seconds = self.seconds(cell)
            if seconds is None:
                return None
            begun = (running or {}).get(cell.id, 0.0)
            left.append(max(seconds - begun, OVERDUE * begun))
        # No process is idle while cells wait, and none is faster than its longest cell.
        return max(sum(left) / self.jobs, max(left, default=0.0))

    def guessed(self, cells: Iterable[Cell]) -> int:
        """How many of these are of a kind of which none has finished or been tried."""
        return sum(cell.kind not in self.measured and cell.kind not in self.tried for cell in cells)


def clock_of(store: Store | None, cells: Iterable[Cell], jobs: int) -> Clock:
    """A clock that knows the finished cells of a store; None for none."""
    clock = Clock(jobs)
    for cell in cells if store is not None else ():
        if store is not None and store.done(cell.id):
            clock.add(cell, float(store.read(cell.id)["seconds"]))
    return clock


def spoken(seconds: float | None) -> str:
    """A duration in words.

    >>> spoken(40), spoken(125), spoken(5400), spoken(None)
    ('40 s', '2 min', '1 h 30 min', 'unknown')
    """
    if seconds is None:
        return "unknown"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

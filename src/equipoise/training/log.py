"""The tables of a run directory, cut back to the checkpoint when a run resumes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.training.events import event_bytes
from equipoise.training.files import write_durably

EVENTS = "tensorboard/events.out.tfevents.run"
TABLES = ("metrics.csv", "steps.csv", "timing.csv", EVENTS)
Row = Mapping[str, float | int | None]


class RunLog:
    """Appends rows to `metrics.csv`, `steps.csv` and `timing.csv`, and the first two as TensorBoard events.

    Numbers are written in full, so a resumed run's tables equal an uninterrupted run's byte for byte; wall-clock times,
    which never would, have a table of their own.

    Args:
        folder: the run directory.
        sizes: bytes of each file to keep, as `sizes` gave them at the checkpoint; the rest is cut off.

    Raises:
        ValueError: a file is shorter than the checkpoint says; or, when rows are appended, it has other columns.
    """

    def __init__(self, folder: Path, *, sizes: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        self._checked: set[str] = set()
        (folder / EVENTS).parent.mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            _cut(folder / name, (sizes or {}).get(name, 0))

    def steps(self, rows: Sequence[Row]) -> None:
        """Append optimizer steps."""
        self._append("steps.csv", rows)
        self._events(rows, "step")

    def epoch(self, row: Row, seconds: float) -> None:
        """Append an epoch."""
        self._append("metrics.csv", [row])
        self._append("timing.csv", [{"epoch": row["epoch"], "seconds": seconds}])
        self._events([row], "epoch")

    def sizes(self) -> dict[str, int]:
        """Bytes of each file now."""
        return {name: _size(self.folder / name) for name in TABLES}

    def _append(self, name: str, rows: Sequence[Row]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if rows and not _size(self.folder / name):
            writer.writerow(rows[0])
        elif rows and name not in self._checked:
            _check_columns(self.folder / name, rows[0])
            self._checked.add(name)
        writer.writerows(["" if value is None else repr(value) for value in row.values()] for row in rows)
        write_durably(self.folder / name, text.getvalue().encode(), "ab")

    def _events(self, rows: Sequence[Row], kind: str) -> None:
        path = self.folder / EVENTS
        write_durably(path, event_bytes(rows, kind=kind, at="step", first=not _size(path)), "ab")


def _check_columns(path: Path, row: Row) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    if header != list(row):
        raise ValueError(
            f"{path} was written by another version of equipoise: its columns are others. Install that version, or "
            "start anew without resuming (`--no-resume`)."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cut(path: Path, size: int) -> None:
    found = _size(path)
    if found < size:
        raise ValueError(
            f"{path} should hold at least {size} bytes, as its checkpoint says. Found {found}. "
            "Restore it, or start anew without resuming (`--no-resume`)."
        )
    if found > size:
        os.truncate(path, size)

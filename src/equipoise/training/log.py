"""The tables of a run directory, cut back to the checkpoint when a run resumes."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TABLES = ("metrics.csv", "steps.csv", "timing.csv")
Row = Mapping[str, float | int | None]


class RunLog:
    """Appends rows to `metrics.csv`, `steps.csv` and `timing.csv`, and to TensorBoard events beside them.

    Numbers are written in full, so a resumed run's tables equal an uninterrupted run's byte for byte; wall-clock times,
    which never would, have a table of their own.

    Args:
        folder: the run directory.
        sizes: bytes of each table to keep, as `sizes` gave them at the checkpoint; the rest is cut off.
        step: optimizer steps done so far.
        tensorboard: whether to write events.

    Raises:
        ValueError: a table is shorter than the checkpoint says.
    """

    def __init__(
        self, folder: Path, *, sizes: Mapping[str, int] | None = None, step: int = 0, tensorboard: bool = True
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            self._cut(folder / name, (sizes or {}).get(name, 0))
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            if step == 0:
                shutil.rmtree(folder / "tensorboard", ignore_errors=True)
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def append(self, name: str, rows: Iterable[Row], *, at: str | None = None) -> None:
        """Append rows to one table; the first row names the columns, ``at`` the one with the step for TensorBoard."""
        path = self.folder / name
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        empty = not path.exists() or path.stat().st_size == 0
        for row in rows:
            if empty:
                writer.writerow(row)
                empty = False
            writer.writerow(["" if value is None else repr(value) for value in row.values()])
            if at is not None and self._events is not None:
                self._add_events(row, at)
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())

    def sizes(self) -> dict[str, int]:
        """Bytes of each table now."""
        return {name: (self.folder / name).stat().st_size for name in TABLES if (self.folder / name).exists()}

    def flush(self) -> None:
        """Hand the events to the disk."""
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Close the events."""
        if self._events is not None:
            self._events.close()

    def _add_events(self, row: Row, at: str) -> None:
        step = row[at]
        for name, value in row.items():
            if name != at and value is not None:
                self._events.add_scalar(name, value, step)

    @staticmethod
    def _cut(path: Path, size: int) -> None:
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise ValueError(
                f"{path} should hold at least {size} bytes, as its checkpoint says. Found {found}. "
                "Restore it, or start anew without resuming."
            )
        if found > size:
            os.truncate(path, size)

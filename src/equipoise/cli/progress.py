"""Progress on standard error: a bar on a terminal; elsewhere a plain line every five seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

from equipoise.report.tables import cell_text

Row = Mapping[str, "float | int | None"]
SECONDS_BETWEEN_LINES = 5.0
Callback = Callable[[int, int, "Row | None"], None]


def training_progress(runs: int, select: str | None = None) -> AbstractContextManager[Callable[[str], Callback]]:
    """Show the progress of several trainings; ``select`` is the validation metric to show beside the loss.

    None shows the first there is.
    """
    return progress(runs, lambda row: _status(row, select))


@contextmanager
def progress(runs: int, describe: Callable[[Row], str] = lambda row: "") -> Iterator[Callable[[str], Callback]]:
    """Show the progress of several runs.

    Args:
        runs: how many there will be, for the overall bar.
        describe: what to say of a row beside the counts.

    Yields:
        A function from the run's name to the callback that `training.run` takes. Only the first of several ranks shows
        anything.
    """
    if os.environ.get("RANK", "0") != "0":  # one process of several speaks for all
        yield lambda name: lambda done, total, row: None
        return
    if not sys.stderr.isatty():
        yield lambda name: _plain_lines(name, describe)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        overall = bar.add_task("runs", total=runs, status="") if runs > 1 else None
        current = bar.add_task("", total=None, status="", visible=False)

        def start(name: str) -> Callback:
            if overall is not None:
                bar.update(overall, completed=started[0])
            started[0] += 1
            bar.reset(current, description=name, total=None, visible=True, status="")

            def update(done: int, total: int, row: Row | None) -> None:
                bar.update(current, completed=done, total=total)
                if row is not None:
                    bar.update(current, status=describe(row))

            return update

        started = [0]
        yield start


@contextmanager
def status(total: int, done: Callable[[], int], line: Callable[[], str]) -> Iterator[Callable[[bool], None]]:
    """Show one line about much work, beside a bar on a terminal.

    Args:
        total: how many pieces of work there are.
        done: how many are done by now.
        line: what is to be said of them now.

    Yields:
        A function to call when something has changed; True says that this is worth a line of its own.
    """
    if not sys.stderr.isatty():
        show = _paced()
        yield lambda now: show(now, line)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.fields[status]}", markup=False)
    with Progress(BarColumn(), TimeElapsedColumn(), text, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done(), status=line())
        yield lambda now: bar.update(task, completed=done(), status=line())


def _plain_lines(name: str, describe: Callable[[Row], str]) -> Callback:
    show = _paced()

    def update(done: int, total: int, row: Row | None) -> None:
        if row is not None:
            parts = [f"{name}: step {done}/{total}", describe(row)]
            show(done == total, lambda: ", ".join(filter(None, parts)))

    return update


def _paced() -> Callable[[bool, Callable[[], str]], None]:
    due = time.monotonic() + SECONDS_BETWEEN_LINES

    def show(now: bool, line: Callable[[], str]) -> None:
        nonlocal due
        if now or time.monotonic() >= due:
            due = time.monotonic() + SECONDS_BETWEEN_LINES
            with suppress(OSError):  # a terminal that was closed is no reason to stop
                print(line(), file=sys.stderr, flush=True)

    return show


def _status(row: Row, select: str | None) -> str:
    fused = [name for name in row if name.startswith("valid/") and name.count("/") == 1]
    shown = f"valid/{select}" if select else next(iter(fused), "valid_loss")
    parts = [f"epoch {row.get('epoch')}", f"loss {cell_text(row.get('train_loss'))}"]
    if shown in row:
        parts.append(f"{shown.replace('/', ' ')} {cell_text(row[shown])}")
    return ", ".join(parts)

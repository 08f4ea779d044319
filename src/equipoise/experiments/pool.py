"""Cells over processes of this machine: killed anywhere it goes on, and no finished cell is lost or run twice."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Protocol, TypeVar

from equipoise.experiments.store import Store

ATTEMPTS = 3
BUSY_SECONDS = 0.5


class Work(Protocol):
    """What is run; a `Cell` is one. It has to be picklable."""

    @property
    def id(self) -> str:
        """The name of its result."""

    def record(self) -> dict[str, Any]:
        """What stands beside its result."""


W = TypeVar("W", bound=Work)
Execute = Callable[[W], Mapping[str, Any]]
Told = Callable[[W, str, float], None]
"""Called with a cell, what became of it (``"start"``, ``"done"``, ``"failed"``, ``"died"``), and its seconds."""


def run_cells(
    cells: Sequence[W],
    execute: Execute[W],
    store: Store,
    *,
    jobs: int = 1,
    attempts: int = ATTEMPTS,
    told: Told[W] | None = None,
    context: BaseContext | None = None,
) -> None:
    """Run what the store has no result for.

    A worker holds its cell's lock (`Store.claim`), and writes the result itself before it says so: whoever is killed,
    what is in the store is finished, and nothing else is. So several of these may fill one store at once. A cell that
    raises is recorded with its error; one whose worker dies is tried again, ``attempts`` times in all. Workers end
    with the process that started them, be it killed or not.

    Args:
        cells: in the order in which they are started; ids differ.
        execute: makes a cell's result, plain JSON values. A function of a module, or a `functools.partial` of one.
        store: where results go. Failed cells in it are left alone; `Store.forget` lets them run again.
        jobs: processes at once.
        attempts: how often a cell may lose its worker before it counts as failed.
        told: hears of everything, in this process.
        context: how processes are started; None for ``forkserver``, which loads torch once for all of them.

    Raises:
        ValueError: ``jobs`` below 1.
        OSError: a result can't be written.
    """
    if jobs < 1:
        raise ValueError(f"Parameter `jobs` should be 1 or more. Found `jobs = {jobs}`.")
    known = store.ids("done") | store.ids("failed")
    waiting = deque(cell for cell in cells if cell.id not in known)
    if not waiting:
        return
    pool = _Pool(execute, store, context or _forkserver())
    deaths: dict[str, int] = {}
    busy: deque[tuple[float, W]] = deque()  # held by another process, with the time of the next look
    tell = told or (lambda cell, what, seconds: None)
    try:
        while waiting or busy or pool.running:
            while busy and busy[0][0] <= time.monotonic():
                waiting.append(busy.popleft()[1])
            while waiting and len(pool.running) < jobs:
                cell = waiting.popleft()
                if not (store.done(cell.id) or store.failed(cell.id)):  # another process may have been quicker
                    pool.start(cell)
                    tell(cell, "start", 0.0)
            if not pool.running:
                time.sleep(BUSY_SECONDS if busy else 0)
                continue
            for cell, what, seconds, error in pool.answers(BUSY_SECONDS if busy else None):
                if what == "broken":
                    raise OSError(f"{store.root}: the result of {cell.id} can't be written ({error}).")
                if what == "busy":
                    busy.append((time.monotonic() + BUSY_SECONDS, cell))
                elif what == "died" and not store.done(cell.id):
                    deaths[cell.id] = deaths.get(cell.id, 0) + 1
                    tell(cell, "died", seconds)
                    if deaths[cell.id] < attempts:
                        waiting.appendleft(cell)
                        continue
                    reason = f"Its process died {deaths[cell.id]} times, the last time by {error}."
                    store.put(cell.id, _record(cell, seconds, error=reason), failed=True)
                    tell(cell, "failed", seconds)
                else:
                    tell(cell, "done" if what == "died" else what, seconds)
    finally:
        pool.end()


@dataclass(eq=False)
class _Worker:
    process: Any
    connection: Connection
    cell: Any = None
    since: float = 0.0


@dataclass
class _Pool:
    """Worker processes; started when there is work for them, and again when they have died."""

    execute: Any
    store: Store
    context: BaseContext
    workers: list[_Worker] = field(default_factory=list)

    @property
    def running(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.cell is not None]

    def start(self, cell: Any) -> None:
        worker = next((worker for worker in self.workers if worker.cell is None), None) or self._new()
        worker.cell, worker.since = cell, time.monotonic()
        with suppress(OSError):  # it died idle; `answers` will see that
            worker.connection.send(cell)

    def answers(self, timeout: float | None) -> list[tuple[Any, str, float, str]]:
        """(cell, what became of it, seconds, why) for those workers that have something to say, or have died."""
        found = []
        of = {worker.connection: worker for worker in self.running}
        for connection in wait(list(of), timeout):
            worker = of[connection]  # type: ignore[index]
            cell, seconds = worker.cell, time.monotonic() - worker.since
            try:
                what, error = worker.connection.recv()
                worker.cell = None
            except (EOFError, OSError):
                what, error = "died", self._bury(worker)
            found.append((cell, what, seconds, error))
        return found

    def end(self) -> None:
        for worker in self.workers:
            worker.process.kill()  # what it has not finished goes on at its checkpoint the next time
            worker.connection.close()
        for worker in self.workers:
            worker.process.join()
        self.workers.clear()

    def _new(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        # No daemon: those may have no children, and a run may read its batches in processes of its own.
        process = self.context.Process(target=_work, args=(theirs, self.execute, self.store))  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]

    def _bury(self, worker: _Worker) -> str:
        worker.process.join()
        worker.connection.close()
        self.workers.remove(worker)
        code = worker.process.exitcode or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _forkserver() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "equipoise.experiments.train"])
    return context


def _work(connection: Connection, execute: Any, store: Store) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            cell = connection.recv()
        except EOFError:
            return
        connection.send(_run(cell, execute, store))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run(cell: Any, execute: Any, store: Store) -> tuple[str, str]:
    try:
        with store.claim(cell.id) as ours:
            if not ours:
                return "busy", ""
            if store.done(cell.id):
                return "done", ""
            started = time.perf_counter()
            content: dict[str, Any]
            what, why = "done", ""
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("default")
                try:
                    content = {"result": dict(execute(cell))}
                except Exception as error:
                    what, why = "failed", " ".join(str(error).split()) or type(error).__name__
                    content = {"error": why, "traceback": traceback.format_exc()}
            messages = list(dict.fromkeys(" ".join(str(each.message).split()) for each in warned))
            record = _record(cell, time.perf_counter() - started, warnings=messages, **content)
            store.put(cell.id, record, failed=what == "failed")
            return what, why
    except OSError as error:
        return "broken", str(error)


def _record(cell: Work, seconds: float, **content: Any) -> dict[str, Any]:
    made = {
        "seconds": seconds,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": platform.node(),
        "torch": _torch_version(),
    }
    return {**cell.record(), **made, **content}


def _torch_version() -> str:
    import torch

    return str(torch.__version__)

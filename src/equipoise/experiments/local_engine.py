"""Worker processes of this machine: they end with the process that started them, be it killed or not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from types import FrameType
from typing import Any

from equipoise.experiments.store import Store
from equipoise.experiments.work import Answer, run_work

READY = "ready"


@dataclass(eq=False)
class _Worker:
    process: Any
    connection: Connection
    cell: Any = None
    since: float = 0.0
    ready: bool = False


@dataclass
class LocalEngine:
    """Processes, started when there is work for them, and again when they have died.

    Attributes:
        execute: makes a cell's result.
        store: where it goes.
        limit_seconds: a cell that takes longer is ended with its process; None for no limit. The start of the process
            does not count.
        context: how processes are started; None for ``forkserver``, which loads torch once for all of them.
        folder: where they work; None for where this process was started.
    """

    execute: Any
    store: Store
    limit_seconds: float | None = None
    context: BaseContext | None = None
    folder: str | None = None
    workers: list[_Worker] = field(default_factory=list)

    @property
    def running(self) -> int:
        """How many cells."""
        return len(self._busy())

    def start(self, cell: Any) -> None:
        """Give a cell to an idle process, or to a new one."""
        worker = next((worker for worker in self.workers if worker.cell is None), None) or self._new()
        worker.cell, worker.since = cell, time.monotonic()
        with suppress(OSError):  # it died idle; `answers` will see that
            worker.connection.send(cell)

    def answers(self, timeout: float | None) -> list[Answer]:
        """Wait, ``timeout`` seconds at most, and say what became of cells."""
        found = []
        of = {worker.connection: worker for worker in self._busy()}
        for connection in wait(list(of), self._patience(timeout)):
            worker = of[connection]  # type: ignore[index]
            cell, seconds = worker.cell, time.monotonic() - worker.since
            try:
                what, why = worker.connection.recv()
            except (EOFError, OSError):
                what, why = "died", self._bury(worker)
            if what == READY:
                worker.ready, worker.since = True, time.monotonic()
                continue
            worker.cell = None
            found.append(Answer(cell, what, seconds, why))
        return found + [self._cut_short(worker) for worker in self._busy() if self._left(worker) <= 0]

    def end(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.process.kill()  # what it has not finished goes on at its checkpoint the next time
            worker.connection.close()
        for worker in self.workers:
            worker.process.join()
        self.workers.clear()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.cell is not None]

    def _left(self, worker: _Worker) -> float:
        if self.limit_seconds is None or not worker.ready:
            return float("inf")
        return worker.since + self.limit_seconds - time.monotonic()

    def _patience(self, timeout: float | None) -> float | None:
        least = min((self._left(worker) for worker in self._busy()), default=float("inf"))
        least = min(least, float("inf") if timeout is None else timeout)
        return None if least == float("inf") else max(least, 0.0)

    def _cut_short(self, worker: _Worker) -> Answer:
        cell, seconds = worker.cell, time.monotonic() - worker.since
        worker.process.kill()
        self._bury(worker)
        return Answer(cell, "late", seconds, f"it took longer than {self.limit_seconds:g} s")

    def _new(self) -> _Worker:
        with _ctrl_c_waits():  # a process that is half started would say so with a traceback
            context = self.context or _forkserver()
            ours, theirs = context.Pipe()
            # No daemon: those may have no children, and a run may read its batches in processes of its own.
            process = context.Process(target=_work, args=(theirs, self.execute, self.store, self.folder))  # type: ignore[attr-defined]
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


@contextmanager
def local_engine(
    execute: Any, store: Store, *, limit_seconds: float | None = None, context: BaseContext | None = None
) -> Iterator[LocalEngine]:
    """An engine whose processes end with it."""
    engine = LocalEngine(execute, store, limit_seconds, context)
    try:
        yield engine
    finally:
        engine.end()


def _forkserver() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "equipoise.experiments.train"])
    # Ctrl-C reaches the server too, and would end its loading with a traceback; what is blocked here stays so in it,
    # and is not lost here. The tracker goes first, for it would unblock.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C counts when the block has ended. Python tells the main thread of it, whichever thread was told."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        before(*pressed[0])


def _work(connection: Connection, execute: Any, store: Store, folder: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if folder is not None:
        os.chdir(folder)
    # The other end is closed where the parent has gone: there is nobody left to tell.
    with suppress(EOFError, BrokenPipeError):
        connection.send((READY, ""))
        while True:
            cell = connection.recv()
            answer = run_work(cell, execute, store)
            connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)

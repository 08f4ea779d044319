"""Cells over many processes: killed anywhere it goes on, and no finished cell is lost or run twice."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from multiprocessing.context import BaseContext
from typing import Literal, Protocol

from equipoise.experiments.local_engine import local_engine
from equipoise.experiments.store import Store
from equipoise.experiments.work import Answer, Execute, W, Work, record_of
from equipoise.training.arguments import unknown

ATTEMPTS = 3
BUSY_SECONDS = 0.5
ENGINES = ("local", "ray")

Told = Callable[[W, str, float], None]
"""Called with a cell, what became of it, and its seconds.

It is ``"start"``, ``"done"``, ``"failed"`` or ``"died"``, and ``"elsewhere"`` where another process has its result.
"""

Asked = Literal["ours", "busy", "elsewhere"]


class Engine(Protocol):
    """What runs cells side by side: it writes their results into the store before it answers."""

    @property
    def running(self) -> int:
        """How many cells have been started and not been answered."""

    def start(self, cell: Work) -> None:
        """Run a cell; this returns at once."""

    def answers(self, timeout: float | None) -> list[Answer]:
        """Wait, ``timeout`` seconds at most, and say what became of cells."""

    def end(self) -> None:
        """Stop whatever runs."""


def run_cells(
    cells: Sequence[W],
    execute: Execute[W],
    store: Store,
    *,
    jobs: int = 1,
    attempts: int = ATTEMPTS,
    limit_seconds: float | None = None,
    told: Told[W] | None = None,
    ask: Callable[[W], Asked] | None = None,
    engine: str = "local",
    address: str | None = None,
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
        limit_seconds: a cell that takes longer is ended, and recorded as failed at once; None for no limit.
        told: hears of everything, in this process.
        ask: asked before a cell is started: ``"busy"`` puts it off, ``"elsewhere"`` says that its result is kept by
            others and not needed here; None starts it in any case.
        engine: ``"local"``, or ``"ray"`` for the machines of a Ray cluster. There a node that sees the store writes
            into it; from any other the result and its run directory (without checkpoints) come back and are written
            here. A node that is lost costs its cells an attempt.
        address: of the cluster, as ``ray start`` prints it; None starts one on this machine that only it can reach.
        context: how the processes of the local engine are started; None for ``forkserver``, which loads torch once for
            all of them.

    Raises:
        ValueError: ``jobs`` below 1, ``limit_seconds`` not above 0, an unknown engine, an address without Ray, or Ray
            is not installed.
        OSError: a result can't be written, or no cluster answers.
    """
    if jobs < 1:
        raise ValueError(f"Parameter `jobs` should be 1 or more. Found `jobs = {jobs}`.")
    if limit_seconds is not None and not limit_seconds > 0:
        raise ValueError(f"Parameter `limit_seconds` should be above 0. Found `limit_seconds = {limit_seconds}`.")
    if engine not in ENGINES:
        raise ValueError(f"Parameter `engine`: {unknown('engine', engine, ENGINES)}")
    if address is not None and engine != "ray":
        raise ValueError(f"Parameter `address` is that of a Ray cluster. Found `engine = {engine!r}`; set it to 'ray'.")
    known = store.ids("done") | store.ids("failed")
    waiting = deque(cell for cell in cells if cell.id not in known)
    if not waiting:
        return
    if engine == "ray":
        from equipoise.experiments.ray_engine import ray_engine

        chosen: AbstractContextManager[Engine]
        chosen = ray_engine(execute, store, jobs=jobs, limit_seconds=limit_seconds, address=address)
    else:
        chosen = local_engine(execute, store, limit_seconds=limit_seconds, context=context)
    with chosen as running:
        tell = told or (lambda cell, what, seconds: None)
        _drive(running, waiting, store, jobs, attempts, tell, ask or (lambda cell: "ours"))


def _drive(
    engine: Engine,
    waiting: deque[W],
    store: Store,
    jobs: int,
    attempts: int,
    tell: Told[W],
    ask: Callable[[W], Asked],
) -> None:
    deaths: dict[str, int] = {}
    busy: deque[tuple[float, W]] = deque()  # held by another process, with the time of the next look
    while waiting or busy or engine.running:
        while busy and busy[0][0] <= time.monotonic():
            waiting.append(busy.popleft()[1])
        while waiting and engine.running < jobs:
            cell = waiting.popleft()
            quicker = store.done(cell.id) or store.failed(cell.id)  # another process that fills this store
            asked = "elsewhere" if quicker else ask(cell)
            if asked == "ours":
                engine.start(cell)
                tell(cell, "start", 0.0)
            elif asked == "busy":
                busy.append((time.monotonic() + BUSY_SECONDS, cell))
            else:
                tell(cell, "elsewhere", 0.0)
        if not engine.running:
            time.sleep(BUSY_SECONDS if busy else 0)
            continue
        for cell, what, seconds, why in engine.answers(BUSY_SECONDS if busy else None):
            if what == "broken":
                raise OSError(f"{store.root}: the result of {cell.id} can't be written ({why}).")
            if what == "busy":
                busy.append((time.monotonic() + BUSY_SECONDS, cell))
            elif what not in ("died", "late") or store.done(cell.id):
                tell(cell, "failed" if what == "failed" else "done", seconds)
            else:
                deaths[cell.id] = deaths.get(cell.id, 0) + 1
                tell(cell, "died", seconds)
                if what == "died" and deaths[cell.id] < attempts:
                    waiting.appendleft(cell)
                    continue
                died = f"Its process died {deaths[cell.id]} times, the last time by {why}."
                reason = died if what == "died" else f"It was ended: {why}."
                store.put(cell.id, record_of(cell, seconds, error=reason), failed=True)
                tell(cell, "failed", seconds)

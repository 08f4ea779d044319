"""Fill a store with a thousand cells while scheduler and workers are killed at random; print what was seen.

It forks, so that torch loads once.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path

from tests.experiments.stub_work import Stub, noted, square

from equipoise.experiments.pool import run_cells
from equipoise.experiments.store import Store

SETTLED = 300


def start(store: Store, cells: list[Stub]) -> int:
    """A scheduler with two workers."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            context = multiprocessing.get_context("fork")
            run_cells(cells, partial(square, store), store, jobs=2, context=context, attempts=100)
            status = 0
        finally:
            os._exit(status)
    return child


def children(process: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def begun(store: Store) -> int:
    """How many cells have been begun so far."""
    log = store.root / "log"
    return log.stat().st_size // len("begun cell-0000\n") if log.is_file() else 0


def cpu_seconds() -> float:
    """Of this process and its ended children: what a busy machine does not change."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def resident_kib() -> int:
    """Memory of this process now; the most that it ever had would hide what grows below that."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def undisturbed(store: Store, cells: list[Stub]) -> dict[str, float]:
    """What a grid costs its scheduler when nobody kills anything."""
    spent, resident = cpu_seconds(), []

    def told(cell: Stub, what: str, seconds: float) -> None:
        if what == "done":
            resident.append(resident_kib())

    context = multiprocessing.get_context("fork")
    run_cells(cells, partial(square, store), store, jobs=2, context=context, told=told)
    return {
        "cells": len(resident),
        "milliseconds_per_cell": 1000 * (cpu_seconds() - spent) / len(cells),
        "grown_kib": max(resident[SETTLED:]) - resident[SETTLED],
    }


def contents(store: Store) -> dict[str, str]:
    return {id: hashlib.sha256((store.root / "done" / f"{id}.json").read_bytes()).hexdigest() for id in store.ids()}


def main(folder: Path, count: int, kills: int, seed: int) -> None:
    store, draw = Store(folder), random.Random(seed)
    cells = [Stub(number) for number in range(count)]
    kept: dict[str, str] = {}
    lost: list[str] = []
    hit = {"scheduler": 0, "worker": 0}
    child = start(store, cells)
    for kill in range(kills):
        # After a random number of further results, and then anywhere within a few of them.
        wanted = begun(store) + draw.randint(1, 6 * count // (5 * kills))
        while begun(store) < wanted and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.02))
        workers = children(child)
        if kill % 2 and workers:
            os.kill(draw.choice(workers), signal.SIGKILL)
            hit["worker"] += 1
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            hit["scheduler"] += 1
            child = start(store, cells)
        now = contents(store)
        lost += [id for id, digest in kept.items() if now.get(id) != digest]
        kept |= now
    status = os.waitpid(child, 0)[1]
    squares = {id: store.read(id)["result"]["metrics"]["square"] for id in sorted(store.ids())}
    print(
        json.dumps(
            {
                "status": status,
                "hit": hit,
                "kept": len(kept),
                "lost": lost,
                "again": [line for line in noted(store) if line.startswith("again")],
                "begun": len(noted(store)),
                "squares": list(squares.values()),
                "rubbish": [path.name for path in (folder / "done").glob(".*")],
                "failed": sorted(store.ids("failed")),
                "undisturbed": undisturbed(Store(folder.with_name("undisturbed")), cells),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

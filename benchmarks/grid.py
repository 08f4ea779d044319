"""What a grid costs beside its work: milliseconds a cell on work that takes none, by the wall clock.

    python -m benchmarks.grid --cells 1000 --jobs 2
    python -m benchmarks.grid --cells 300 --engine local ray --folder runs

Beside it in the same run: a bare `multiprocessing` pool that keeps nothing, and one that writes each result as durably
(a file, synced, renamed, its folder synced). Processes are started, and torch is loaded in them, before the clock is.
Of `run_cells` also how much the memory of the scheduling process grows over the last four fifths of the cells.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from equipoise.experiments.pool import run_cells
from equipoise.experiments.store import Store
from equipoise.experiments.work import record_of
from equipoise.training.results import write_json


@dataclass(frozen=True)
class Nothing:
    """A cell that does nothing."""

    number: int

    @property
    def id(self) -> str:
        return f"{self.number:06d}"

    def record(self) -> dict[str, Any]:
        return {"number": self.number}


def result(cell: Nothing) -> dict[str, Any]:
    return {"metrics": {"square": cell.number**2}}


def bare(folder: Path | None, cell: Nothing) -> None:
    record = record_of(cell, 0.0, result=result(cell))
    if folder is not None:
        write_json(folder / f"{cell.id}.json", record)


def of_pool(cells: list[Nothing], jobs: int, folder: Path | None) -> float:
    """Seconds of a bare pool; results are written where a folder is given."""
    with multiprocessing.get_context("forkserver").Pool(jobs) as pool:
        pool.map(partial(bare, None), cells[: 4 * jobs], chunksize=1)
        started = time.perf_counter()
        for _ in pool.imap_unordered(partial(bare, folder), cells, chunksize=1):
            pass
        return time.perf_counter() - started


def resident() -> int:
    """KiB of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def of_engine(cells: list[Nothing], jobs: int, folder: Path, engine: str) -> tuple[float, int]:
    """Seconds of `run_cells`, reckoned from when a fifth of its cells has been answered, and KiB grown since then."""
    finished: list[float] = []
    memory: list[int] = []

    def told(cell: Nothing, what: str, seconds: float) -> None:
        if what == "done":
            finished.append(time.perf_counter())
            memory.append(resident())

    run_cells(cells, result, Store(folder), jobs=jobs, engine=engine, told=told)
    settled = len(cells) // 5
    seconds = (finished[-1] - finished[settled]) * len(cells) / (len(cells) - 1 - settled)
    return seconds, max(memory[settled:]) - memory[settled]


def rounds(args: argparse.Namespace) -> Iterator[tuple[str, float, int | None]]:
    cells = [Nothing(number) for number in range(args.cells)]
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            yield "bare pool, nothing kept", of_pool(cells, args.jobs, None), None
            yield "bare pool, results written", of_pool(cells, args.jobs, Path(folder)), None
            for engine in args.engine:
                yield f"run_cells, {engine}", *of_engine(cells, args.jobs, Path(folder) / engine, engine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", nargs="+", choices=["local", "ray"], default=["local"])
    parser.add_argument("--folder", help="on the disk to be measured (that of temporary files)")
    args = parser.parse_args()
    found: dict[str, list[float]] = {}
    grown: dict[str, list[int]] = {}
    for name, seconds, kib in rounds(args):
        found.setdefault(name, []).append(1000 * seconds / args.cells)
        grown.setdefault(name, []).extend([] if kib is None else [kib])
    print(f"{args.cells} cells, {args.jobs} at once, median (least to most) of {args.rounds} rounds, ms a cell")
    for name, each in found.items():
        memory = f"  {max(grown[name])} KiB grown at most" if grown[name] else ""
        print(f"{name:<28} {median(each):6.2f}  ({min(each):.2f} to {max(each):.2f}){memory}")


if __name__ == "__main__":
    from benchmarks.grid import main as imported  # work of a module that the processes of a cluster can load

    imported()

"""Work that takes no time and leaves a trace, for tests of the store and the pool with real processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.experiments.store import Store


@dataclass(frozen=True)
class Stub:
    """A cell whose result is the square of its number."""

    number: int

    @property
    def id(self) -> str:
        return f"cell-{self.number:04d}"

    def record(self) -> dict[str, Any]:
        return {"number": self.number}


def note(store: Store, line: str) -> None:
    """Append a line to the store's log in one write: no kill tears it, no other process mixes into it."""
    handle = os.open(store.root / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def noted(store: Store) -> list[str]:
    path = store.root / "log"
    return path.read_text().splitlines() if path.is_file() else []


def square(store: Store, stub: Stub) -> dict[str, Any]:
    note(store, f"{'again' if store.done(stub.id) else 'begun'} {stub.id}")
    time.sleep(0.001)
    return {"metrics": {"square": stub.number**2}}


def square_or_fail(store: Store, stub: Stub) -> dict[str, Any]:
    if stub.number % 3 == 1:
        raise ValueError(f"{stub.number} leaves 1.")
    return square(store, stub)


def die_once(store: Store, stub: Stub) -> dict[str, Any]:
    """Number 1 takes its process down the first time, number 2 every time."""
    first = f"begun {stub.id}" not in noted(store)
    found = square(store, stub)
    if stub.number == 2 or (stub.number == 1 and first):
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def wait_for_file(path: Path, store: Store, stub: Stub) -> dict[str, Any]:
    found = square(store, stub)
    while not path.exists():
        time.sleep(0.01)
    return found


def square_of_one_folder(root: Path, store: Store, stub: Stub) -> dict[str, Any]:
    """With a run directory of a prediction and a checkpoint; it fails where ``root`` is not where it works."""
    if root != Path.cwd():
        raise ValueError(f"{Path.cwd()} is not {root}.")
    run = store.run_dir(stub.id)
    (run / "checkpoint").mkdir(parents=True)
    (run / "checkpoint" / "weights").write_text("heavy")
    (run / "predictions.csv").write_text(f"{stub.number}")
    return {"metrics": {"square": stub.number**2}}


def lose_parent_once(store: Store, stub: Stub) -> dict[str, Any]:
    """Number 1 takes down the process that started its own, the first time."""
    first = f"begun {stub.id}" not in noted(store)
    found = square(store, stub)
    parent = multiprocessing.parent_process()
    if stub.number == 1 and first and parent is not None and parent.pid:
        os.kill(parent.pid, signal.SIGKILL)
        time.sleep(60)
    return found


def wait_noting_parent(path: Path, store: Store, stub: Stub) -> dict[str, Any]:
    """Numbers 0 and 1 wait for the file, and have noted in which process, and under which."""
    found = square(store, stub)
    parent = multiprocessing.parent_process()
    if stub.number < 2 and parent is not None:
        note(store, f"parent {parent.pid} {os.getpid()} {stub.id}")
        while not path.exists():
            time.sleep(0.01)
    return found


def square_or_sleep(store: Store, stub: Stub) -> dict[str, Any]:
    """Odd numbers sleep for a minute."""
    found = square(store, stub)
    time.sleep(60 * (stub.number % 2))
    return found

"""One cell in a worker: claimed, run, and its result in the store before anybody hears of it."""

from __future__ import annotations

import platform
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol, TypeVar

from equipoise.experiments.store import Store


class Work(Protocol):
    """What is run; a `Cell` is one. It has to be picklable."""

    @property
    def id(self) -> str:
        """The name of its result."""

    def record(self) -> dict[str, Any]:
        """What stands beside its result."""


W = TypeVar("W", bound=Work)
Execute = Callable[[W], Mapping[str, Any]]


class Answer(NamedTuple):
    """What became of a cell.

    Attributes:
        cell: as it was given.
        what: ``"done"`` or ``"failed"``, and then it is in the store; ``"busy"`` where another process holds it;
            ``"broken"`` where its result can't be written; ``"died"`` with its worker; ``"late"`` where it was ended.
        seconds: since it was begun.
        why: of all but the first.
    """

    cell: Any
    what: str
    seconds: float
    why: str


def run_work(cell: Any, execute: Execute[Any], store: Store) -> tuple[str, str]:
    """Run a cell in this process, unless it is held elsewhere or done; (what became of it, why)."""
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
            record = record_of(cell, time.perf_counter() - started, warnings=messages, **content)
            store.put(cell.id, record, failed=what == "failed")
            return what, why
    except OSError as error:
        return "broken", str(error)


def record_of(cell: Work, seconds: float, **content: Any) -> dict[str, Any]:
    """What the store keeps of a cell: what it is, where and when it ran, and ``content``."""
    made = {
        "seconds": seconds,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": platform.node(),
        "torch": _torch_version(),
    }
    return {**cell.record(), **made, **content}


@lru_cache(maxsize=1)
def _torch_version() -> str:
    return version("torch")  # of the package: work that needs no torch need not wait for it

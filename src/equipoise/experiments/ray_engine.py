"""Cells over the machines of a Ray cluster: Ray says where each runs, and there a process of its own runs it.

So a cell is run, limited and recorded by the same code as on one machine, and gives the same numbers.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.experiments.local_engine import LocalEngine
from equipoise.experiments.parcel import pack, unpack
from equipoise.experiments.store import Store
from equipoise.experiments.work import Answer

OBJECT_STORE = 100 * 2**20
"""Bytes of shared memory of a cluster that is started here: results are small, and data does not pass through it."""


@dataclass(frozen=True)
class Order:
    """What a node needs to know of a grid.

    Attributes:
        execute: makes a cell's result.
        store: where it goes; a relative path is taken from ``folder``.
        limit_seconds: as in `LocalEngine`.
        folder: where the driver works.
        mark: name of a file that the driver has put into its store: a node that sees it shares that store.
    """

    execute: Any
    store: Store
    limit_seconds: float | None
    folder: str
    mark: str


@dataclass
class RayEngine:
    """A driver: its cells are tasks of a cluster, one at a time on each CPU, or on each GPU where there are any.

    Attributes:
        order: what nodes are told.
        jobs: cells at once.
    """

    order: Order
    jobs: int
    tasks: dict[Any, Any] = field(default_factory=dict)
    _remote: Any = None

    @property
    def running(self) -> int:
        """How many cells."""
        return len(self.tasks)

    def start(self, cell: Any) -> None:
        """Hand a cell to the cluster."""
        import ray

        self._remote = self._remote or ray.remote(run_order)  # once: every node loads it anew for each that is made
        share = min(1.0, _resources().get("GPU", 0.0) / self.jobs)
        # Whether a cell is tried again is decided here, so that it is counted: not by Ray.
        task = self._remote.options(num_cpus=1, num_gpus=share, max_retries=0, scheduling_strategy="SPREAD")
        self.tasks[task.remote(cell, self.order)] = cell

    def answers(self, timeout: float | None) -> list[Answer]:
        """Wait, ``timeout`` seconds at most, and say what became of cells."""
        import ray

        found: list[Answer] = []
        for task in ray.wait(list(self.tasks), timeout=timeout)[0]:
            cell = self.tasks.pop(task)
            try:
                (what, seconds, why), parcel = ray.get(task)
            except ray.exceptions.RayError as error:
                found.append(Answer(cell, "died", 0.0, _said(error)))
                continue
            if parcel is not None:
                unpack(parcel, self.order.store)
            found.append(Answer(cell, what, seconds, why))
        return found

    def end(self) -> None:
        """Stop whatever runs."""
        import ray

        for task in self.tasks:
            with suppress(ray.exceptions.RayError):
                ray.cancel(task, force=True)
        self.tasks.clear()


@contextmanager
def ray_engine(
    execute: Any, store: Store, *, jobs: int, limit_seconds: float | None = None, address: str | None = None
) -> Iterator[RayEngine]:
    """An engine that is connected; the connection ends with it, and so does a cluster that was started for it.

    Raises:
        ValueError: Ray is not installed, or ``execute`` is in the script that is run, which no node can load.
        OSError: no cluster answers at the address, or none can be started.
    """
    function = getattr(execute, "func", execute)
    if getattr(function, "__module__", None) == "__main__":
        raise ValueError(
            "Parameter `execute` should be a function of a module that every node can import. Found `execute = "
            f"{getattr(function, '__name__', function)}` of the script itself. Put it into a file of its own."
        )
    with connected(jobs, address):
        mark = f".driver-{secrets.token_hex(8)}"
        (store.root / mark).touch()
        engine = RayEngine(Order(execute, store, limit_seconds, _folder(), mark), jobs)
        try:
            yield engine
        finally:
            engine.end()
            (store.root / mark).unlink(missing_ok=True)


def cluster_jobs(address: str) -> int:
    """How many cells a cluster runs at once: one a GPU, or one a CPU where it has none.

    Raises:
        ValueError: Ray is not installed.
        OSError: no cluster answers at the address.
    """
    with connected(1, address):
        resources = _resources()
    return max(1, int(resources.get("GPU", 0) or resources.get("CPU", 0)))


@contextmanager
def connected(jobs: int, address: str | None) -> Iterator[None]:
    """A connection to a cluster, unless this process has one already; without an address to one started for it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # What makes Ray listen on loopback alone; it is read once, as Ray loads.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise ValueError('Parameter `engine`: Ray is not installed. Run `pip install "equipoise[ray]"`.') from None
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    here: dict[str, Any] = {"num_cpus": jobs, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    here["_system_config"] = {"worker_niceness": 0}  # as the local engine's
    stopping = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", log_to_driver=False, configure_logging=False, **({} if address else here))
    except Exception as error:  # Ray raises bare ones too, as where its processes are slow to start
        where = f"no cluster at `--address {address}`" if address else "no cluster can be started here"
        raise OSError(f"Ray: {where} ({_said(error)}).") from None
    with suppress(ValueError):  # not the main thread: then Ray has left the signal alone
        signal.signal(signal.SIGTERM, stopping)
    try:
        yield
    finally:
        ray.shutdown()


_engines: dict[str, LocalEngine] = {}  # of a node's process, which Ray gives one cell after another


def run_order(cell: Any, order: Order) -> tuple[tuple[str, float, str], dict[str, bytes] | None]:
    """What a node does: run a cell in a process of its own, and pack the result where the store is not shared."""
    shared = (Path(order.folder) / order.store.root / order.mark).is_file()
    folder = order.folder if shared else os.getcwd()
    if order.mark not in _engines:
        for engine in _engines.values():
            engine.end()
        _engines.clear()
        store = Store(Path(folder) / order.store.root)
        _engines[order.mark] = LocalEngine(order.execute, store, order.limit_seconds, folder=folder)
    engine = _engines[order.mark]
    engine.start(cell)
    answers: list[Answer] = []
    while not answers:
        answers = engine.answers(None)
    _, what, seconds, why = answers[0]
    ended = what == "failed" or engine.store.done(cell.id)
    return (what, seconds, why), pack(engine.store, cell.id) if ended and not shared else None


def _folder() -> str:
    return os.getcwd()


def _resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _said(error: BaseException) -> str:
    """The first line of what Ray says, which is often a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ").rstrip(".")

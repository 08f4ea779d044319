"""A server on loopback, as `equipoise serve` starts it, in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from equipoise.scoring.score import Scorer
from equipoise.serve.limits import Limits
from equipoise.serve.server import listen, serve
from equipoise.serve.service import Service


@dataclass
class Running:
    """A server that answers.

    Attributes:
        address: ``http://127.0.0.1:PORT``.
        client: keeps its connections.
        scratch: its folder for uploads lies here.
    """

    address: str
    client: httpx.Client
    service: Service
    scratch: Path

    def left(self) -> list[Path]:
        """Uploads that still lie on the disk."""
        return [path for path in self.scratch.rglob("*") if path.is_file() and path.name != "lock"]


@contextmanager
def running(model: Path, scratch: Path, limits: Limits | None = None, token: str | None = None) -> Iterator[Running]:
    scratch.mkdir(exist_ok=True)
    listener = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    started = threading.Event()
    found: list[tuple[Service, Callable[[], None]]] = []
    failed: list[BaseException] = []

    def ready(service: Service, stop: Callable[[], None]) -> None:
        found.append((service, stop))
        started.set()

    def work() -> None:
        try:
            serve(Scorer(model), listener, limits=limits or Limits(rate=0), token=token, scratch=scratch, ready=ready)
        except BaseException as error:
            failed.append(error)
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(120)
    if failed:
        raise failed[0]
    service, stop = found[0]
    try:
        with httpx.Client(base_url=address, timeout=60) as client:
            yield Running(address, client, service, scratch)
    finally:
        stop()
        thread.join(30)
    assert not failed
    assert list(scratch.iterdir()) == []  # nothing stays

"""From a saved model to a socket that answers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from equipoise.scoring.score import Scorer
from equipoise.serve.app import create_app
from equipoise.serve.limits import Limits
from equipoise.serve.service import Service

_CONNECTIONS = 512
Ready = Callable[[Service, Callable[[], None]], None]


def serve(
    scorer: Scorer,
    listener: socket.socket,
    *,
    limits: Limits,
    token: str | None = None,
    loopback: bool = True,
    scratch: str | Path | None = None,
    models: Sequence[str | Path] = (),
    ready: Ready = lambda service, stop: None,
) -> None:
    """Answer until a signal ends it; nothing stays on the disk.

    Args:
        scorer: the model.
        listener: a socket that listens, see `listen`.
        limits: what is taken on.
        token: which requests have to bring; None for none.
        loopback: the socket is bound to loopback.
        scratch: where uploads lie until they are decoded.
        models: files and folders of the models that the recipe asks for.
        ready: called once clips are taken, with the service and a function that ends it.

    Raises:
        ValueError: the model does not say how clips become what it reads.
        FileNotFoundError: a model that features are made with is not here.
        OSError: no confined process can be started.
    """
    service = Service(scorer, limits, scratch=scratch, models=models)
    asyncio.run(_serve(service, listener, token, loopback, ready))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Args:
        host: name or address.
        port: 0 for any that is free.

    Raises:
        OSError: it can't; one line.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS)
    except OSError as error:
        raise OSError(f"{host}:{port} can't be listened at: {(error.strerror or str(error)).lower()}.") from None


async def _serve(service: Service, listener: socket.socket, token: str | None, loopback: bool, ready: Ready) -> None:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        create_app(service, token=token, loopback=loopback),
        access_log=False,
        date_header=True,
        h11_max_incomplete_event_size=16 * 1024,
        http="h11",  # in Python: a parser in C would face the network first
        lifespan="off",
        limit_concurrency=_CONNECTIONS,
        log_level="warning",
        proxy_headers=False,  # else any client could choose the address that its rate is counted under
        server_header=False,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    try:
        await service.start()
        server = uvicorn.Server(config)
        ready(service, lambda: setattr(server, "should_exit", True))
        await server.serve(sockets=[listener])
    finally:
        await service.stop()
        listener.close()

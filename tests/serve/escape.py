"""What a confined process tries; each is run in a process of its own."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from equipoise.serve.confinement import confine

Found = dict[str, Any]


def enter(connection: Connection, attempt: str, folder: str, secret: str) -> None:
    """Confine this process, make the attempt, and say what came of it."""
    held = confine(Path(folder), memory_mb=200, seconds=1.0, file_bytes=2**20)
    found = ATTEMPTS[attempt](Path(folder), Path(secret))
    connection.send_bytes(json.dumps({"held": held, **found}).encode())


def tried(act: Callable[[], object]) -> str:
    try:
        act()
    except MemoryError:
        return "MemoryError"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def limits(folder: Path, secret: Path) -> Found:
    return {
        "small": tried(lambda: bytearray(50 * 2**20)),
        "large": tried(lambda: bytearray(500 * 2**20)),
        "short": tried(lambda: (folder / "a").write_bytes(bytes(2**20))),
        "long": tried(lambda: (folder / "b").write_bytes(bytes(2**20 + 1))),
        "many": tried(lambda: [open(folder / "a") for _ in range(300)]),
    }


def forever(folder: Path, secret: Path) -> Found:
    while True:
        pass


def lift(folder: Path, secret: Path) -> Found:
    import resource

    whole = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, whole)
    return {"before": before[0], "after": resource.getrlimit(resource.RLIMIT_AS)[0]}


def escape(folder: Path, secret: Path) -> Found:
    def thread() -> None:
        worker = threading.Thread(target=lambda: None)
        worker.start()
        worker.join()

    return {
        "files": {
            "read": tried(secret.read_text),
            "list": tried(lambda: os.listdir(secret.parent)),
            "passwords": tried(lambda: open("/etc/passwd")),
            "parent": tried(lambda: open(f"/proc/{os.getppid()}/environ")),
            "write": tried(lambda: secret.write_text("x")),
            "make": tried(lambda: (secret.parent / "new").write_text("x")),
            "remove": tried(secret.unlink),
            "climb": tried(lambda: (folder / "../new").write_text("x")),
        },
        "calls": {
            "network": tried(lambda: socket.socket()),
            "neighbours": tried(lambda: socket.socket(socket.AF_UNIX)),
            "fork": tried(os.fork),
            "program": tried(lambda: os.execv("/bin/true", ["true"])),
            "kill": tried(lambda: os.kill(os.getppid(), 0)),
            "rights": tried(lambda: os.chmod(folder, 0o777)),
            "owner": tried(lambda: os.chown(folder, 1, 1)),
            "user": tried(lambda: os.setuid(1)),
        },
        "own": {
            "write": tried(lambda: (folder / "c").write_text("x")),
            "folder": tried((folder / "d").mkdir),
            "remove": tried((folder / "c").unlink),
            "thread": tried(thread),
            "import": tried(lambda: __import__("wave")),
            "library": tried(lambda: __import__("sqlite3")),
            "random": tried(lambda: open("/dev/urandom", "rb").read(8)),
        },
    }


ATTEMPTS: dict[str, Callable[[Path, Path], Found]] = {
    "limits": limits,
    "forever": forever,
    "lift": lift,
    "escape": escape,
}

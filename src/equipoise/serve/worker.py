"""In the confined process: one clip to features, and nothing else."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from equipoise.serve.confinement import confine
from equipoise.serve.limits import MEBIBYTE
from equipoise.serve.wire import pack

# PyTorch, OpenCV and the loader of libraries have no class of their own for it.
_NO_MEMORY = (
    "can't allocate memory",
    "Resource temporarily unavailable",
    "Cannot allocate memory",
    "Insufficient memory",
    "failed to map segment",
)
_FILE_BYTES = 64 * MEBIBYTE  # extractors write no files of their own; libraries may keep small ones


@dataclass(frozen=True, slots=True)
class Task:
    """What one process has to do.

    Attributes:
        folder: the only one where it may write; the clip is in it.
        file: name of the clip in ``folder``; empty to report how the process is confined and end.
        id: of the clip in tables.
        recipe: `Recipe.to_json`.
        text: what is said, if known.
        start, end: seconds of the segment.
        clip_seconds: longer ones are refused.
        seconds: until it is killed.
        memory_mb: MiB beyond its libraries.
        models: those that the recipe asks for; they can be read.
    """

    folder: str
    file: str
    id: str
    recipe: dict[str, Any]
    text: str | None
    start: float
    end: float | None
    clip_seconds: float
    seconds: float
    memory_mb: int
    models: tuple[str, ...]


def work(connection: Connection, task: Task) -> None:
    """Confine this process, extract the clip, and send what `wire.pack` makes of it, or why there is nothing."""
    _forget_parent(task.folder)
    held = confine(
        Path(task.folder),
        memory_mb=task.memory_mb,
        seconds=task.seconds,
        file_bytes=_FILE_BYTES,
        readable=task.models,
    )
    if not task.file:
        _send(connection, {"held": held})
        return
    try:
        told, arrays = pack(_extract(task))
    except Exception as error:
        _send(connection, _told(error, task))
    else:
        _send(connection, told, arrays)


def _told(error: Exception, task: Task) -> dict[str, Any]:
    """What the server hears of an error: the clip's fault, or its own."""
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        return {"refused": f"it needs more than {task.memory_mb} MiB of memory", "code": "memory"}
    if isinstance(error, ValueError):  # MediaError is one
        return {"refused": _line(error), "code": "media"}
    return {"failed": f"{type(error).__name__}: {_line(error)}"}


def _extract(task: Task) -> Any:
    from equipoise.extraction.clip_features import extract_clip
    from equipoise.extraction.recipe import Recipe
    from equipoise.features.clip import open_clip

    asked = open_clip(task.file, start=task.start, end=task.end)
    if asked.duration > task.clip_seconds:
        raise ValueError(
            f"the clip is {asked.duration:.0f} s long, and at most {task.clip_seconds:.0f} s are scored here: "
            "give `start` and `end`, or a shorter clip"
        )
    return extract_clip(
        task.file,
        Recipe(**task.recipe),
        start=task.start,
        end=task.end,
        text=task.text,
        id=task.id,
        models=task.models,
    )


def _forget_parent(folder: str) -> None:
    """No secrets of the server's environment, no terminal, no files anywhere but here."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    os.environ.clear()
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ.update({**kept, **quiet, "HOME": folder, "TMPDIR": folder})
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.umask(0o077)
    os.chdir(folder)


def _send(connection: Connection, told: dict[str, Any] | bytes, arrays: bytes = b"") -> None:
    with suppress(OSError):
        connection.send_bytes(told if isinstance(told, bytes) else json.dumps(told).encode())
        connection.send_bytes(arrays)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__

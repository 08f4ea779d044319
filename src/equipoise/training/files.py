"""Files that are whole or absent, and JSON that any reader takes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Errors of the disk say which file: the system knows it when a file is opened, and not when one is written."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_durably(path: Path, content: bytes, mode: Literal["wb", "ab"] = "wb") -> None:
    """Write a file, or append to it, and wait until the disk has it."""
    with named(path), path.open(mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Put new content under a name in one move: a reader, or a kill, sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_durably(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON, or no object with anything in it; one line.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Delete it and run again what wrote it.") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} should hold a JSON object. Delete it and run again what wrote it.")
    return content


def plain(value: Any) -> Any:
    """The value as JSON has it: mappings and sequences as dicts and lists, a number that JSON lacks as None.

    >>> plain({"mae": float("nan"), "seeds": (0, 1)})
    {'mae': None, 'seeds': [0, 1]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

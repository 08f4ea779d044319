"""Files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal


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

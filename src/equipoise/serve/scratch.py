"""A folder for uploads that is gone when the server is, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "equipoise-serve-"
_LOCK = "lock"


class Scratch:
    """A new folder that only this user can read.

    A server that is killed leaves its folder behind. The next one that starts in the same place clears it away: nobody
    holds its lock.

    Args:
        parent: where; the system's folder for temporary files by default.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        place = Path(parent or tempfile.gettempdir())
        _clear(place)
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        self._lock = os.open(self.root / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def folder(self) -> Path:
        """An empty folder."""
        return Path(tempfile.mkdtemp(dir=self.root))

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove such a folder and all in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)


def _clear(place: Path) -> None:
    for left in place.glob(_PREFIX + "*"):
        with suppress(OSError):
            lock = os.open(left / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)

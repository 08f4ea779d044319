"""Digests of clips, computed once as long as size and time of change stay the same, and of the code that reads them."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from equipoise.data.manifest import sha256
from equipoise.training.results import write_json

FILENAME = "contents.json"
SOURCES = ("features/*.py", "extraction/clip_features.py", "extraction/recipe.py")
"""The code that features depend on."""


class Contents:
    """Digests of files, remembered in a folder.

    Args:
        folder: where ``contents.json`` is kept; deleting that file costs a second reading, nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILENAME
        self._known: dict[str, list[int | str]] = {}
        self._changed = False
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            self._known = found if isinstance(found, dict) else {}
        except (FileNotFoundError, ValueError):
            pass

    def digest(self, path: Path) -> str:
        """64 hexadecimal digits.

        Raises:
            OSError: the file can't be read.
        """
        status = path.stat()
        known = self._known.get(str(path.resolve()))
        if isinstance(known, list) and known[:2] == [status.st_size, status.st_mtime_ns]:
            return str(known[2])
        found = sha256(path)
        self._known[str(path.resolve())] = [status.st_size, status.st_mtime_ns, found]
        self._changed = True
        return found

    def save(self) -> None:
        """Keep what was computed.

        Raises:
            OSError: it can't be written.
        """
        if self._changed:
            write_json(self._file, self._known)
            self._changed = False


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Of the sources that features depend on: a changed line extracts anew."""
    root = Path(str(files("equipoise")))
    digest = hashlib.sha256()
    for file in sorted(file for pattern in SOURCES for file in root.glob(pattern)):
        digest.update(f"{file.relative_to(root).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()[:16]

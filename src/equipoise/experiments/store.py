"""Results on disk: one file a cell, whole or absent, whoever is killed and whenever."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.training.files import sync_folder
from equipoise.training.results import write_json

DONE, FAILED, RUNS = "done", "failed", "runs"
LEFT_BEHIND = shutil.ignore_patterns("checkpoint", "tensorboard", ".*.tmp")


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did.

    Attributes:
        taken: results that were new here.
        same: those that were here already.
        differing: ids of those that were here with other figures; ours were kept.
    """

    taken: int
    same: int
    differing: tuple[str, ...]


class Store:
    """A directory of results.

    ``done/ID.json`` and ``failed/ID.json`` are written in one move by whoever ran the cell; ``runs/ID`` is its run
    directory. Nothing else is kept, so nothing can disagree with them: several processes may fill one store, and a
    folder copied from another machine is a store.

    Args:
        root: the directory; it is made.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        for name in (DONE, FAILED, RUNS):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def run_dir(self, id: str) -> Path:
        """Where a cell trains, and goes on after a kill."""
        return self.root / RUNS / id

    def done(self, id: str) -> bool:
        """Whether a cell has a result."""
        return (self.root / DONE / f"{id}.json").is_file()

    def failed(self, id: str) -> bool:
        """Whether a cell has failed, and has no result."""
        return (self.root / FAILED / f"{id}.json").is_file() and not self.done(id)

    def ids(self, status: str = DONE) -> set[str]:
        """The cells with a result, or (``"failed"``) with an error."""
        found = {path.stem for path in (self.root / status).glob("[!.]*.json")}
        return found if status == DONE else found - self.ids(DONE)

    def read(self, id: str) -> dict[str, Any]:
        """What is known of a finished or failed cell.

        Raises:
            FileNotFoundError: it is neither.
            ValueError: its file is damaged.
        """
        return _read(self._path(id))

    def put(self, id: str, record: Mapping[str, Any], *, failed: bool = False) -> None:
        """Write a result, or an error. A result is never written over, and takes the place of an error.

        Raises:
            OSError: it can't be written.
        """
        if self.done(id):
            return
        write_json(self.root / (FAILED if failed else DONE) / f"{id}.json", record)
        if not failed:
            self.forget(id)

    def forget(self, id: str) -> None:
        """Take back that a cell has failed, so that it runs again."""
        (self.root / FAILED / f"{id}.json").unlink(missing_ok=True)

    @contextmanager
    def claim(self, id: str) -> Iterator[bool]:
        """Hold a cell while it runs; False where another process holds it.

        The system lets go of it when the holder ends, however it ends.
        """
        import fcntl

        folder = self.run_dir(id)
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def merge(self, other: Store) -> Merged:
        """Take over what another store has and this one lacks; of run directories all but the checkpoints.

        Raises:
            ValueError: a damaged file there.
            OSError: something can't be written.
        """
        same, differing, taken = 0, [], 0
        for id in sorted(other.ids(DONE)):
            theirs = other.read(id)
            if self.done(id):
                same += 1
                if _figures(self.read(id)) != _figures(theirs):
                    differing.append(id)
                continue
            self._take_run(other.run_dir(id), self.run_dir(id))
            self.put(id, theirs)
            taken += 1
        for id in sorted(other.ids(FAILED)):
            if not self.done(id) and not self.failed(id):
                self.put(id, other.read(id), failed=True)
                taken += 1
        return Merged(taken, same, tuple(differing))

    def _path(self, id: str) -> Path:
        return self.root / (DONE if self.done(id) else FAILED) / f"{id}.json"

    @staticmethod
    def _take_run(source: Path, target: Path) -> None:
        if not source.is_dir():
            return
        # The result is written after this: a kill in between leaves a folder that the next merge fills again.
        shutil.copytree(source, target, ignore=LEFT_BEHIND, dirs_exist_ok=True)
        sync_folder(target.parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Delete it and run the same command again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object. Delete it and run the same command again.")
    return content


def _figures(record: Mapping[str, Any]) -> Any:
    result = record.get("result")
    return result.get("metrics") if isinstance(result, Mapping) else result

"""One training of a comparison, and the id that says whether two of them are the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from equipoise import __version__
from equipoise.data import load
from equipoise.experiments.rows import Role
from equipoise.training.config import RunConfig
from equipoise.training.foreign import is_foreign, source_digest

DECIDE = ("core", "functional", "balancers", "layers", "models", "features", "data", "metrics", "training")
"""The rooms whose code a figure depends on."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: its names in the tables, and all that decides its figures.

    Attributes:
        id: a digest of ``config``, ``code`` and ``checksum``; names are no part of it.
        dataset: its name.
        model: its name.
        method: its name.
        role: a method, or one of the controls.
        config: the whole run config, the seed in it.
        code: `code_version` when it was planned.
        checksum: `data_checksum` of its dataset.
        against: names of the controls that it is judged by.
        split: what it is scored on: ``"valid"`` for a trial of settings, which never reads the test split.
        trials: settings tried for its method on validation data; None where none were.
    """

    id: str
    dataset: str
    model: str
    method: str
    role: Role
    config: RunConfig
    code: str
    checksum: str
    against: tuple[str, ...] = ()
    split: Literal["test", "valid"] = "test"
    trials: int | None = None

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.config.seed

    @property
    def kind(self) -> str:
        """Cells of one kind differ in the seed alone, trials in settings too, so they take about equally long."""
        return f"{self.dataset}, {self.model}, {self.method}{', trial' if self.split == 'valid' else ''}"

    def record(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        names = ("id", "dataset", "model", "method", "role", "seed", "split", "trials")
        values = {name: getattr(self, name) for name in names}
        return values | {"config": self.config.model_dump(mode="json"), "code": self.code, "data": self.checksum}


def make_cell(
    config: RunConfig,
    *,
    dataset: str,
    model: str,
    method: str,
    role: Role = "method",
    checksum: str | None = None,
    against: tuple[str, ...] = (),
    split: Literal["test", "valid"] = "test",
    trials: int | None = None,
) -> Cell:
    """A cell with its id.

    Args:
        config: of the run.
        dataset: its name in the tables.
        model: likewise.
        method: likewise.
        role: a method, or one of the controls.
        checksum: of the dataset; None computes it.
        against: names of the controls that it is judged by.
        split: what it is scored on.
        trials: settings tried for its method.
    """
    code = code_version()
    checksum = checksum or data_checksum(config.data)
    # The place of the data is left out: the checksum says what lies there, on every machine.
    decides = config.model_dump(mode="json", exclude={"data"})
    if is_foreign(config.model.name):  # likewise: its text decides, not its place
        decides["model"]["name"] = source_digest(config.model.name)
    text = json.dumps([decides, code, checksum, split], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    return Cell(digest, dataset, model, method, role, config, code, checksum, against, split, trials)


@lru_cache(maxsize=1)
def code_version() -> str:
    """The version, and a digest of the sources that decide a figure: a changed line makes other cells."""
    root = Path(str(files("equipoise")))
    digest = hashlib.sha256()
    for room in DECIDE:
        for file in sorted((root / room).rglob("*.py")):
            content = file.read_bytes()
            digest.update(f"{file.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return f"{__version__}+{digest.hexdigest()[:12]}"


def data_checksum(path: str | Path) -> str:
    """A digest of what a dataset's manifest says of its content, the checksum of every file among it.

    The files themselves are not read again; `equipoise data verify` does that.

    Raises:
        FileNotFoundError: no dataset there.
        DataError: a manifest that can't be read.
    """
    manifest = asdict(load(path).manifest)
    content = {key: manifest[key] for key in ("labels", "modalities", "splits", "files", "unimodal", "arrays")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

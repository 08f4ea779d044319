"""The manifest of a canonical dataset: what is in the folder, typed; equal data give equal bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from equipoise.data.errors import DataError

VERSION = 1
FILENAME = "manifest.json"
SPLITS = ("train", "valid", "test")

Task = Literal["regression", "classification"]
Scale = Literal["mosi", "sims"]
SCALE_RANGES: dict[str, tuple[float, float]] = {"mosi": (-3.0, 3.0), "sims": (-1.0, 1.0)}


@dataclass(frozen=True, slots=True)
class ModalityInfo:
    """One modality.

    Attributes:
        dim: width of a frame; 0 where a frame is one token id.
        dtype: ``float32``, or ``int32`` for token ids.
        frames: frames of all samples together.
        shortest, mean, longest: length of the samples that have the modality.
        missing: samples without a frame.
        repaired: non-finite values found and replaced by 0.
        extractor: what made the features, if known.
    """

    dim: int
    dtype: str
    frames: int
    shortest: int
    mean: float
    longest: int
    missing: int
    repaired: int = 0
    extractor: str | None = None


@dataclass(frozen=True, slots=True)
class LabelInfo:
    """The labels.

    Attributes:
        kind: ``regression`` or ``classification``.
        outputs: targets (regression) or classes (classification).
        range: least and greatest label allowed, if declared.
        classes: names of the classes.
        scale: whose rounding and thresholds the metrics use.
        targets: names of the targets where there are several.
    """

    kind: Task
    outputs: int
    range: tuple[float, float] | None = None
    classes: tuple[str, ...] | None = None
    scale: Scale | None = None
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of ``manifest.json``.

    Attributes:
        modalities: in the order they were written.
        splits: samples of each split that is not empty.
        files: SHA-256 of every other file of the folder.
        unimodal: modalities that have labels of their own.
        arrays: names of further arrays, one row a sample.
        columns: columns of ``samples.csv``.
        extra: whatever the source wants to keep; JSON.
    """

    name: str
    source: str
    synthetic: bool
    samples: int
    labels: LabelInfo
    modalities: dict[str, ModalityInfo]
    splits: dict[str, int]
    files: dict[str, str]
    columns: tuple[str, ...] = ("id", "split")
    unimodal: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def task(self) -> Task:
        """``regression`` or ``classification``."""
        return self.labels.kind

    def to_json(self) -> str:
        """Indented JSON, one trailing newline."""
        try:
            return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise DataError(f"Parameter `extra` should hold plain JSON values. Found: {error}.") from error

    @classmethod
    def from_json(cls, text: str, *, where: str = FILENAME) -> Manifest:
        """Parse and check; any disagreement with the layout is a `DataError` of one line that names ``where``."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where} is not JSON: {error}.") from error
        if not isinstance(raw, dict):
            raise DataError(f"{where} should hold one JSON object. Found {type(raw).__name__}.")
        if raw.get("version") != VERSION:
            raise DataError(
                f"{where} should have version {VERSION}. Found {raw.get('version')!r}; import the data again."
            )
        _check_keys(cls, raw, where)
        labels, modalities = raw["labels"], raw["modalities"]
        if not isinstance(labels, dict) or not isinstance(modalities, dict):
            raise DataError(f"{where}: `labels` and `modalities` should be JSON objects.")
        _check_keys(LabelInfo, labels, f"{where}: labels")
        for name, entry in modalities.items():
            check_name(name, where)
            if not isinstance(entry, dict):
                raise DataError(f"{where}: modality `{name}` should be a JSON object.")
            _check_keys(ModalityInfo, entry, f"{where}: modality `{name}`")
        for name in (*raw.get("unimodal", ()), *raw.get("arrays", ())):
            check_name(name, where)
        for name in raw["files"]:
            if Path(name).name != name:
                raise DataError(f"{where}: file `{name}` should be a plain file name inside the dataset folder.")
        tuples = {key: tuple(raw[key]) for key in ("columns", "unimodal", "arrays") if key in raw}
        lists = ("range", "classes", "targets")
        label_tuples = {key: tuple(labels[key]) for key in lists if labels.get(key) is not None}
        return cls(
            **{
                **raw,
                **tuples,
                "labels": LabelInfo(**{**labels, **label_tuples}),
                "modalities": {name: ModalityInfo(**entry) for name, entry in modalities.items()},
            }
        )


def check_name(name: str, where: str) -> None:
    """Names become file names, so only letters, digits, `_` and `-` may stand in them."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in ("labels", "samples", "cache", "manifest"):
        raise DataError(
            f"{where}: `{name}` can't name a modality or an array. Use letters, digits, `_` and `-`, "
            "and none of labels, samples, cache, manifest."
        )


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


_PLAIN: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def _check_keys(kind: type[Any], raw: Mapping[str, object], where: str) -> None:
    known = {entry.name for entry in fields(kind)}
    required = {entry.name for entry in fields(kind) if entry.default is entry.default_factory}  # both MISSING
    for problem, names in (("unknown", set(raw) - known), ("missing", required - set(raw))):
        if names:
            raise DataError(f"{where}: {problem} key {', '.join(f'`{name}`' for name in sorted(names))}.")
    for entry in fields(kind):
        plain = _PLAIN.get(str(entry.type))  # the annotation as written
        if plain and entry.name in raw and not isinstance(raw[entry.name], plain):
            raise DataError(f"{where}: `{entry.name}` should be {entry.type}. Found {raw[entry.name]!r}.")

"""The manifest of a canonical dataset: what is in the folder, typed; equal data give equal bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

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
        if (found := raw.get("version")) != VERSION:
            newer = isinstance(found, int) and found > VERSION
            do = (
                "a newer equipoise wrote it, so install that, or import the data again"
                if newer
                else "import the data again"
            )
            raise DataError(f"{where} should have version {VERSION}. Found {found!r}; {do}.")
        _check_keys(cls, raw, where)
        labels, modalities = raw["labels"], raw["modalities"]
        _check_keys(LabelInfo, labels, f"{where}: labels")
        for name, entry in modalities.items():
            check_name(name, where)
            if not isinstance(entry, dict):
                raise DataError(f"{where}: modality `{name}` should be a JSON object. Found {entry!r}.")
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


def _check_keys(kind: type[Any], raw: Mapping[str, object], where: str) -> None:
    known = {entry.name for entry in fields(kind)}
    required = {entry.name for entry in fields(kind) if entry.default is entry.default_factory}  # both MISSING
    for problem, names in (("unknown", set(raw) - known), ("missing", required - set(raw))):
        if names:
            raise DataError(f"{where}: {problem} key {', '.join(f'`{name}`' for name in sorted(names))}.")
    hints = get_type_hints(kind)
    for entry in fields(kind):
        if entry.name in raw and not _fits(raw[entry.name], hints[entry.name]):
            one = is_dataclass(hints[entry.name])
            expected = "a JSON object" if one else str(entry.type).replace("tuple", "list")
            raise DataError(f"{where}: `{entry.name}` should be {expected}. Found {raw[entry.name]!r}.")


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value is of a type as the manifest declares it: a list for a tuple, an object for a dataclass."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if kind is tuple and isinstance(value, list):
        each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(each) and all(map(_fits, value, each))
    if is_dataclass(hint):
        return isinstance(value, dict)  # its entries are checked by `_check_keys`
    if kind is dict:
        return isinstance(value, dict) and (is_dataclass(inner[1]) or all(_fits(v, inner[1]) for v in value.values()))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return hint is Any or (kind is None and isinstance(value, hint))

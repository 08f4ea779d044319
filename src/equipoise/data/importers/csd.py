"""CMU-SDK computational sequences: a folder of ``.csd`` files (HDF5), one a modality and one for the labels.

A file holds ``<root>/data/<entry>/{features [n, d], intervals [n, 2]}`` and ``<root>/metadata``. The labels' entries
are videos with one row a segment, or segments (``video[3]``) with one row. A segment's frames in another file are those
of the entry of the same name, or else the rows of the video's entry whose midpoint lies in the segment's interval.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array, ImportedData, Rows, checked_scale, split_name

# Parts of the released files' names, in the order they are tried.
ROLES = (
    ("label", ("label", "opinion", "sentiment")),
    ("words", ("timestampedwords", "words")),
    ("text", ("wordvector", "glove", "bert", "text", "language")),
    ("audio", ("covarep", "opensmile", "acoustic", "audio")),
    ("vision", ("openface", "facet", "visual", "vision")),
)


@dataclass(frozen=True, slots=True)
class _Segment:
    name: str
    video: str
    start: float
    end: float


def recognise(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return any(folder.glob("*.csd"))


def read(
    path: Path,
    *,
    map: Mapping[str, str] | None = None,
    split: str | None = None,
    column: int = 0,
    scale: str | None = None,
) -> ImportedData:
    """Read a folder of computational sequences; features are read sample by sample.

    Args:
        path: the folder.
        map: role (``label``, ``words``, ``text``, ``audio``, ``vision`` or another modality's name) to file name;
            without it the roles follow from the file names.
        split: a JSON file ``{train, valid, test}`` → list of videos or segments (the folder's ``splits.json`` by
            default), or train, valid or test for all rows. The released files say nothing about splits.
        column: which label column (MOSEI has seven; sentiment is 0).
        scale: ``"mosi"`` (default) or ``"sims"``.

    """
    files = _roles(path, map)
    if "label" not in files:
        raise DataError(f"{path}: no .csd file looks like labels. Name it: `--map label=FILE.csd`.")
    chosen = checked_scale(scale) or "mosi"
    segments, labels = _segments(files.pop("label"), column)
    splits, kept = _splits(path, split, segments)
    segments, labels = [segments[i] for i in kept], labels[kept]
    words = files.pop("words", None)
    modalities = {role: _frames(file, segments) for role, file in files.items()}
    if not modalities and words is None:
        raise DataError(f"{path}: no .csd file besides the labels. A modality or the words is needed.")
    return ImportedData(
        name=path.name,
        source=path.name,
        task="regression",
        modalities=modalities,
        labels=labels,
        ids=[segment.name for segment in segments],
        splits=splits,
        scale=chosen,
        texts=_texts(words, segments) if words else None,
        groups=[segment.video for segment in segments],
        assumptions=("a frame belongs to the segment that its interval's midpoint lies in",),
    )


def _roles(path: Path, given: Mapping[str, str] | None) -> dict[str, Path]:
    if given:
        files = {role: path / name for role, name in given.items()}
        missing = [file for file in files.values() if not file.is_file()]
        if missing:
            raise DataError(f"{path}: no file {missing[0].name}.")
        return files
    files = {}
    for file in sorted(path.glob("*.csd")):
        role = next((role for role, parts in ROLES if any(part in file.name.lower() for part in parts)), None)
        if role is None:
            raise DataError(f"{file}: no modality follows from the name. Name it: `--map audio={file.name}`.")
        if role in files:
            raise DataError(f"{path}: {files[role].name} and {file.name} both look like {role}. Choose with `--map`.")
        files[role] = file
    return files


def _open(file: Path) -> Any:
    import h5py

    try:
        h5 = h5py.File(file)
    except OSError as error:
        raise DataError(f"{file} is not an HDF5 computational sequence: {' '.join(str(error).split())}.") from None
    roots = list(h5)
    if len(roots) != 1 or "data" not in h5[roots[0]]:
        h5.close()
        raise DataError(f"{file} should hold one root with `data`. Found: {', '.join(roots) or 'nothing'}.")
    return h5


def _entry(data: Any, name: str, file: Path) -> tuple[Array, Array]:
    entry = data[name]
    missing = [key for key in ("features", "intervals") if key not in entry]
    if missing:
        raise DataError(f"{file}: {name} has no key `{missing[0]}`.")
    features, intervals = entry["features"][()], entry["intervals"][()]
    if len(features) != len(intervals) or intervals.ndim != 2 or intervals.shape[1] != 2:
        raise DataError(f"{file}: {name}: lengths disagree: features {features.shape}, intervals {intervals.shape}.")
    return features, intervals


def _segments(file: Path, column: int) -> tuple[list[_Segment], Array]:
    segments, labels = [], []
    with _open(file) as h5:
        data = h5[next(iter(h5))]["data"]
        for name in data:
            features, intervals = _entry(data, name, file)
            if features.ndim != 2 or not -features.shape[1] <= column < features.shape[1]:
                raise DataError(f"{file}: {name}: no label column {column}. Found shape {features.shape}.")
            split_already = name.endswith("]") and "[" in name
            video = name.rsplit("[", 1)[0] if split_already else name
            if split_already and len(features) != 1:
                raise DataError(f"{file}: {name} should have one row. Found {len(features)}.")
            for i, (value, (start, end)) in enumerate(zip(features[:, column], intervals, strict=True)):
                segments.append(_Segment(name if split_already else f"{name}[{i}]", video, float(start), float(end)))
                labels.append(float(value))
    return segments, np.array(labels, dtype=np.float32)


def _splits(path: Path, split: str | None, segments: Sequence[_Segment]) -> tuple[list[str], list[int]]:
    if split in ("train", "valid", "test"):
        return [split] * len(segments), list(range(len(segments)))
    file = Path(split) if split else path / "splits.json"
    if not file.is_file():
        raise DataError(
            f"{path}: no split file {file}. Computational sequences have no splits: give a JSON file "
            "{train, valid, test} with `--split FILE`, or `--split train` and split later."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        of = {member: split_name(key, str(file)) for key, members in content.items() for member in members}
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} should be JSON of the form {{train: [...], valid: [...], test: [...]}}.") from None
    # As with the released folds, what no split names is left out.
    kept = [i for i, s in enumerate(segments) if s.name in of or s.video in of]
    if not kept:
        raise DataError(f"{file} names no video or segment of {path}.")
    return [of.get(segments[i].name) or of[segments[i].video] for i in kept], kept


def _rows(h5: Any, file: Path, segment: _Segment, cached: dict[str, tuple[Array, Array]]) -> Array | None:
    data = h5[next(iter(h5))]["data"]
    if segment.name in data:
        return _entry(data, segment.name, file)[0]
    if segment.video not in data:
        return None
    if segment.video not in cached:
        cached.clear()  # the segments of a video follow each other: one video in memory is enough
        cached[segment.video] = _entry(data, segment.video, file)
    features, intervals = cached[segment.video]
    middle = intervals.mean(axis=1)
    found: Array = features[(middle >= segment.start) & (middle < segment.end)]
    return found


def _frames(file: Path, segments: Sequence[_Segment]) -> Rows:
    with _open(file) as h5:
        data = h5[next(iter(h5))]["data"]
        if not len(data):
            raise DataError(f"{file} holds no entries.")
        features, _ = _entry(data, next(iter(data)), file)
    if features.ndim != 2 or features.dtype.kind not in "biuf":
        raise DataError(f"{file} should hold [n, d] numbers. Found {features.dtype} of shape {features.shape}.")
    empty = np.zeros((0, features.shape[1]), dtype=np.float32)

    def each() -> Iterator[Array]:
        cached: dict[str, tuple[Array, Array]] = {}
        with _open(file) as h5:
            for segment in segments:
                rows = _rows(h5, file, segment, cached)
                yield empty if rows is None else rows

    return Rows(len(segments), each)


def _texts(file: Path, segments: Sequence[_Segment]) -> list[str]:
    cached: dict[str, tuple[Array, Array]] = {}
    texts = []
    with _open(file) as h5:
        for segment in segments:
            rows = _rows(h5, file, segment, cached)
            words = [] if rows is None else [w.decode() if isinstance(w, bytes) else str(w) for w in rows.reshape(-1)]
            texts.append(" ".join(word for word in words if word != "sp"))  # sp: a pause
    return texts

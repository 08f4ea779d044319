"""What every importer returns, and the checks they share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from equipoise.data.errors import DataError
from equipoise.data.manifest import SCALE_RANGES, Scale, Task

Array = npt.NDArray[Any]
SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}


@dataclass(frozen=True, slots=True)
class ImportedData:
    """A source as read, one entry a sample; what `write_dataset` takes.

    Attributes:
        modalities: per modality, one ``[T, d]`` array a sample; read again on each iteration.
        labels: ``[N]`` or ``[N, R]`` floats, or ``[N]`` class indices.
        splits: train, valid or test, per sample.
        groups: the source video, per sample.
        assumptions: what the file does not say and was taken for granted; one line each.

    """

    name: str
    source: str
    task: Task
    modalities: Mapping[str, Iterable[Array]]
    labels: Array
    ids: Sequence[str]
    splits: Sequence[str]
    label_range: tuple[float, float] | None = None
    classes: Sequence[str] | None = None
    scale: Scale | None = None
    texts: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    speakers: Sequence[str] | None = None
    unimodal_labels: Mapping[str, Array] | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()


class Rows:
    """Arrays that are made one at a time, on each iteration anew: a source need not fit into memory."""

    def __init__(self, size: int, start: Callable[[], Iterator[Array]]) -> None:
        self.size = size
        self.start = start

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Array]:
        return self.start()


def need(mapping: Any, key: Any, where: str) -> Any:
    """``mapping[key]``, or a line that names the key, the place and the keys that are there."""
    if not isinstance(mapping, Mapping):
        raise DataError(f"{where} should be a dict with the key `{key}`. Found {type(mapping).__name__}.")
    try:
        return mapping[key]
    except KeyError:
        keys = [str(k) for k in list(mapping)[:12]]
        raise DataError(f"{where} has no key `{key}`. It has: {', '.join(keys) or 'none'}.") from None


def numeric(values: Any, where: str) -> Array:
    """A number array, or a line that names the place."""
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where} should hold numbers, of one shape per sample.") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} should hold numbers. Found {array.dtype}.")
    return array


def frames(values: Any, where: str) -> Array:
    """One sample as ``[T, d]``."""
    array = numeric(values, where)
    if array.ndim == 1:
        array = array[None] if array.size else array.reshape(0, 0)
    if array.ndim != 2:
        raise DataError(f"{where} should be [T, d]. Found shape {array.shape}.")
    return array


def agree(where: str, **counts: int) -> int:
    """The one count that all parts have, or a line that shows which disagree."""
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{where}: lengths disagree: {found}.")
    return next(iter(counts.values()))


def content_lengths(padded: Array) -> Array:
    """``[N]`` frames before the trailing all-zero ones of ``[N, T, d]``.

    The rule where a file gives no lengths: trailing frames that are zero throughout are padding. A sample that is zero
    throughout has no frames: it lacks the modality.
    """
    lengths = np.zeros(len(padded), dtype=np.int64)
    for row, sample in enumerate(padded):  # one at a time: a mask of the whole would be as large as the file
        used = np.flatnonzero((sample != 0).any(axis=1))
        lengths[row] = used[-1] + 1 if len(used) else 0
    return lengths


def trimmed(padded: Array, lengths: Any, where: str) -> list[Array]:
    """Views ``[T_i, d]`` of ``[N, T, d]`` without padding; ``lengths`` None applies the rule of `content_lengths`."""
    if padded.ndim != 3:
        raise DataError(f"{where} should be [N, T, d]. Found shape {padded.shape}.")
    if lengths is None:
        counts = content_lengths(padded)
    else:
        counts = numeric(lengths, f"{where}: lengths").reshape(-1)
        agree(where, samples=len(padded), lengths=len(counts))
        wrong = np.flatnonzero((counts < 0) | (counts > padded.shape[1]) | (counts != np.floor(counts)))
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{where}: lengths disagree: sample {row} is said to have {counts[row]:g} frames, "
                f"the array has {padded.shape[1]}."
            )
    return [sample[: int(count)] for sample, count in zip(padded, counts, strict=True)]


def strings(values: Any, where: str) -> list[str]:
    """One string a sample."""
    array = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(array, (list, tuple)):
        raise DataError(f"{where} should be a list of strings. Found {type(array).__name__}.")
    return [string(value) for value in array]


def string(value: Any) -> str:
    """A string as files store it: text, bytes, a number, or a one-element array of these."""
    if isinstance(value, (np.ndarray, list, tuple)) and len(value) == 1:
        return string(value[0])
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def split_name(name: Any, where: str) -> str:
    """train, valid or test for the spellings in use (dev, val)."""
    try:
        return SPLIT_NAMES[string(name).strip().lower()]
    except KeyError:
        raise DataError(f"{where}: unknown split {string(name)!r}. Known: {', '.join(SPLIT_NAMES)}.") from None


def refuse_split(split: str | None, where: str) -> None:
    """One split for all rows would go unheard where the source says which row is in which."""
    if split is not None:
        raise DataError(f"{where} says the split of each row itself. Leave out `--split`. Found `split = {split!r}`.")


def segment_video(segment: str) -> str | None:
    """The video of a segment id as the field writes it: ``vid$_$3``, ``vid[3]``, ``vid/0003``, ``vid_3``."""
    match = re.fullmatch(r"(.+?)(?:\$_\$\d+|\[\d+\]|/\d+|_\d+)", segment)
    return match[1] if match else None


def videos(ids: Sequence[str]) -> list[str] | None:
    """The source video of each sample, if every id names one."""
    found = [segment_video(i) for i in ids]
    return None if any(v is None for v in found) else [str(v) for v in found]


def three_splits(content: Any, where: str) -> list[tuple[str, str, Any]]:
    """``(key, split, part)`` of a dict with train, valid (or dev, val) and test; at least train."""
    if not isinstance(content, Mapping):
        raise DataError(f"{where} should be a dict of splits. Found {type(content).__name__}.")
    known = [(str(key), SPLIT_NAMES[str(key)], part) for key, part in content.items() if str(key) in SPLIT_NAMES]
    if not any(split == "train" for _, split, _ in known):
        need({str(key): None for key in content}, "train", where)
    seen = [split for _, split, _ in known]
    if len(set(seen)) < len(seen):
        raise DataError(f"{where} has two keys for one split: {', '.join(key for key, _, _ in known)}.")
    return known


def listed_samples(content: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """``(where, split, sample)`` of a dict of three splits, each a list of samples."""
    for key, split, samples in three_splits(content, where):
        if not isinstance(samples, (list, tuple)) or not samples:
            raise DataError(f"{where}: {key}: the split is empty.")
        for i, sample in enumerate(samples):
            yield f"{where}: {key}: sample {i}", split, sample


def checked_scale(scale: str | None) -> Scale | None:
    """The scale, if it is one."""
    if scale is not None and scale not in SCALE_RANGES:
        raise DataError(f"Parameter `scale` should be one of {', '.join(SCALE_RANGES)}. Found `scale = {scale!r}`.")
    return cast("Scale | None", scale)


def class_indices(values: Sequence[str], classes: Sequence[str] | None, where: str) -> tuple[Array, list[str]]:
    """Indices into ``classes``, or into the sorted distinct values where no classes are given."""
    names = list(classes) if classes else sorted(set(values), key=lambda v: (not _is_number(v), _number(v), v))
    index = {name: i for i, name in enumerate(names)}
    unknown = sorted({value for value in values if value not in index})
    if unknown:
        raise DataError(f"{where}: label {unknown[0]!r} is none of the classes {', '.join(names)}.")
    return np.array([index[value] for value in values], dtype=np.int64), names


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


def _number(text: str) -> float:
    return float(text) if _is_number(text) else 0.0

"""The label file of a folder of clips: what each clip, or each segment of one, is called, says and means."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array
from equipoise.data.importers.tables import read_columns, read_splits, table_labels
from equipoise.data.manifest import Scale, Task

REQUIRED = ("file", "label")
MODALITIES = ("text", "audio", "vision")
OPTIONAL = ("id", "split", "text", "start", "end", "group", "speaker", *(f"label_{name}" for name in MODALITIES))


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One row.

    Attributes:
        id: its name in tables.
        file: as the table writes it.
        path: where that is.
        start, end: seconds of the file at which the segment begins and ends; None for the file's end.
        text: what is said; empty where the table does not tell.
    """

    id: str
    file: str
    path: Path
    start: float = 0.0
    end: float | None = None
    text: str = ""


@dataclass(frozen=True, eq=False)
class ClipLabels:
    """A label file, one entry a row.

    Attributes:
        source: name of the file.
        clips: the rows.
        task: what the labels are.
        labels: ``[N]`` numbers or class indices.
        classes, label_range, scale: as `equipoise.data.write_dataset` takes them.
        unimodal: labels of single modalities, as ``labels``.
        splits: train, valid or test; None where the file does not tell.
        groups: what belongs together, by default the segments of one file; None where every row is a file of its own.
        speakers: who speaks; None where the file does not tell.
        assumptions: what the file does not say and was taken for granted.
    """

    source: str
    clips: tuple[LabelledClip, ...]
    task: Task
    labels: Array
    classes: list[str] | None
    label_range: tuple[float, float] | None
    scale: Scale | None
    unimodal: dict[str, Array]
    splits: list[str] | None
    groups: list[str] | None
    speakers: list[str] | None
    assumptions: tuple[str, ...]


def read_labels(
    path: str | PathLike[str],
    clips: str | PathLike[str],
    *,
    names: Mapping[str, str] | None = None,
    split: str | None = None,
    split_values: Mapping[str, str] | None = None,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    label_range: tuple[float, float] | None = None,
    scale: str | None = None,
) -> ClipLabels:
    """Read a CSV (or TSV) with the columns of `REQUIRED` and any of `OPTIONAL`; another column is refused.

    Args:
        path: the table.
        clips: the folder that ``file`` is relative to.
        names: the name here to the file's column, such as ``{"label": "sentiment"}``.
        split: train, valid or test for all rows, where the file has no such column.
        split_values: the file's values to train, valid or test.
        task: regression or classification; by default regression where every label is a number with a point or sign,
            or ``scale`` or ``label_range`` is given.
        classes: names of the classes in order.
        label_range: least and greatest label.
        scale: ``mosi`` or ``sims``, whose range it implies.

    Raises:
        DataError: the table breaks a rule; one line that names the row. A clip that is missing is none of these: it
            is known by its path.
        FileNotFoundError: no such table or folder.
    """
    path, folder = Path(path), Path(clips)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of clips {folder}.")
    columns = read_columns(path, names)
    missing = [name for name in REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    if missing:
        raise DataError(f"{path} has no column `{missing[0]}`. It has: {', '.join(columns)}.")
    if unknown:
        raise DataError(
            f"{path}: column `{unknown[0]}` is not known. Rename it (`--map NAME=COLUMN`) or take it out. "
            f"Known: {', '.join((*REQUIRED, *OPTIONAL))}."
        )
    rows = _clips(path, folder, columns)
    labels = table_labels(columns, MODALITIES, path, task=task, classes=classes, label_range=label_range, scale=scale)
    return ClipLabels(
        source=path.name,
        clips=rows,
        task=labels.task,
        labels=labels.values,
        classes=labels.classes,
        label_range=label_range,
        scale=labels.scale,
        unimodal=labels.unimodal,
        splits=read_splits(columns, path, split, split_values),
        groups=columns.get("group") or _files(columns["file"]),
        speakers=columns.get("speaker"),
        assumptions=labels.assumptions,
    )


def _clips(path: Path, folder: Path, columns: Mapping[str, list[str]]) -> tuple[LabelledClip, ...]:
    files, size = [file.strip() for file in columns["file"]], len(columns["file"])
    blank = [""] * size
    starts = [_seconds(cell, 0.0, f"{path}: row {i + 2}: start") for i, cell in enumerate(columns.get("start", blank))]
    ends = [_seconds(cell, None, f"{path}: row {i + 2}: end") for i, cell in enumerate(columns.get("end", blank))]
    ids = columns.get("id") or _ids(files)
    found = []
    for i, (id, file, start, end) in enumerate(zip(ids, files, starts, ends, strict=True)):
        where = f"{path}: row {i + 2}"
        if not file:
            raise DataError(f"{where} names no file.")
        if not id.strip():
            raise DataError(f"{where} has no id. Give each row one, or none (leave the column out).")
        if end is not None and not end > (start or 0.0):
            raise DataError(f"{where}: the segment should end after {start:g} s, where it begins. Found {end:g}.")
        text = " ".join(columns.get("text", blank)[i].split())
        found.append(LabelledClip(id, file, _find(folder, file), start or 0.0, end, text))
    twice = next((id for id, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        rows = [str(i + 2) for i, id in enumerate(ids) if id == twice]
        raise DataError(f"{path}: rows {', '.join(rows[:4])} have one id, {twice!r}. Give each its own (column `id`).")
    return tuple(found)


def _seconds(cell: str, default: float | None, where: str) -> float | None:
    if not cell.strip():
        return default
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{where} should be seconds from the start of the file. Found {cell!r}.")
    return value


def _ids(files: Sequence[str]) -> list[str]:
    """The name of the file without its ending; with a number behind it where a file has several rows."""
    counts, seen = Counter(files), Counter[str]()
    ids = []
    for file in files:
        stem = Path(file).with_suffix("").as_posix() if file else file
        ids.append(f"{stem}[{seen[file]}]" if counts[file] > 1 else stem)
        seen[file] += 1
    return ids


def _files(files: Sequence[str]) -> list[str] | None:
    """The file as the group of its segments; None where no file has two rows."""
    names = [Path(file.strip()).with_suffix("").as_posix() for file in files]
    return names if len(set(files)) < len(files) else None


def _find(folder: Path, file: str) -> Path:
    """The clip's path; a name may be written in another Unicode form on the disk than in the table."""
    forms = (file, unicodedata.normalize("NFC", file), unicodedata.normalize("NFD", file))
    return next((folder / form for form in forms if (folder / form).is_file()), folder / file)

"""Tables with one row a sample: read strictly, columns renamed, labels recognised."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array, checked_scale, refuse_split, split_name
from equipoise.data.importers.npz import labels_of
from equipoise.data.manifest import Scale, Task


def read_columns(path: Path, names: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """The columns of a CSV file (``.tsv``: tab-separated) in UTF-8, blank lines left out.

    Args:
        path: the file.
        names: the name here to the file's column, such as ``{"label": "sentiment"}``. A column whose name is given to
            another is not read.

    Raises:
        DataError: no such table, no rows, rows of other lengths than the header, or an unknown column; one line.
        FileNotFoundError: no such file.
    """
    rows, header = _read(path)
    if not rows:
        raise DataError(f"{path} has no rows.")
    renamed = {column: name for name, column in (names or {}).items()}
    unknown = [column for column in renamed if column not in header]
    if unknown:
        raise DataError(f"{path} has no column `{unknown[0]}`. It has: {', '.join(header)}.")
    return {
        renamed.get(key, key): [row[i] for row in rows]
        for i, key in enumerate(header)
        if key in renamed or key not in (names or {})
    }


def read_splits(
    columns: Mapping[str, list[str]], path: Path, split: str | None, values: Mapping[str, str] | None
) -> list[str] | None:
    """Train, valid or test for each row: from the column ``split``, or one for all; None where neither is given.

    Args:
        columns: of `read_columns`.
        path: the table, for messages.
        split: one for all rows, where there is no such column.
        values: the column's values to train, valid or test.

    Raises:
        DataError: an unknown split, or one for all rows beside a column that tells it.
    """
    if "split" in columns:
        refuse_split(split, str(path))
        known = dict(values or {})
        return [split_name(known.get(v, v), f"{path}: row {i + 2}") for i, v in enumerate(columns["split"])]
    return [split_name(split, "Parameter `split`")] * len(columns["label"]) if split else None


@dataclass(frozen=True, eq=False)
class TableLabels:
    """The labels of a table.

    Attributes:
        task: what they are.
        values: ``[N]`` numbers or class indices.
        classes: names of the classes; None of numbers.
        scale: that of a field's benchmarks, where one was given.
        unimodal: labels of single modalities, as ``values``.
        assumptions: what the table does not say and was taken for granted.
    """

    task: Task
    values: Array
    classes: list[str] | None
    scale: Scale | None
    unimodal: dict[str, Array]
    assumptions: tuple[str, ...]


def table_labels(
    columns: Mapping[str, list[str]],
    modalities: Iterable[str],
    path: Path,
    *,
    task: str | None,
    classes: Sequence[str] | None,
    label_range: tuple[float, float] | None,
    scale: str | None,
) -> TableLabels:
    """The columns ``label`` and ``label_<modality>``.

    Args:
        columns: of `read_columns`.
        modalities: whose own labels are read, where there are any.
        path: the table, for messages.
        task: regression or classification; by default regression where every label is a number and one has a point or
            a sign, or ``scale`` or ``label_range`` is given.
        classes: names of the classes in order.
        label_range: least and greatest label.
        scale: ``mosi`` or ``sims``.

    Raises:
        DataError: what is no number, no class, no task or no scale; one line.
    """
    chosen = checked_scale(scale)
    numbers = label_range is not None or chosen is not None or _decimals(columns["label"])
    kind = task or ("regression" if numbers else "classification")
    values, names = _parse(columns["label"], kind, classes, f"{path}: label")
    own = {name: f"label_{name}" for name in modalities}
    return TableLabels(
        task="classification" if kind == "classification" else "regression",
        values=values,
        classes=names,
        scale=chosen,
        unimodal={
            name: _parse(columns[key], kind, names, f"{path}: {key}")[0] for name, key in own.items() if key in columns
        },
        assumptions=() if task else (f"the labels are {'classes' if kind == 'classification' else 'numbers'}",),
    )


def _parse(
    values: Sequence[str], task: str, classes: Sequence[str] | None, where: str
) -> tuple[Array, list[str] | None]:
    if task == "regression":
        try:
            return np.array([float(v) for v in values], dtype=np.float32), None
        except ValueError as error:
            raise DataError(f"{where} should hold numbers: {error}.") from None
    _, labels, names = labels_of(np.array(values), task, classes, where)
    return labels, names


def _read(path: Path) -> tuple[list[list[str]], list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a UTF-8 CSV file: {error}.") from None
    if not lines:
        raise DataError(f"{path} is empty.")
    header = [name.strip() for name in lines[0]]
    if len(set(header)) < len(header) or "" in header:
        raise DataError(f"{path}: the header has an empty or repeated name: {', '.join(header)}.")
    rows = [line for line in lines[1:] if line]
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise DataError(f"{path}: row {i + 2} has {len(row)} cells, the header {len(header)}.")
    return rows, header


def _decimals(values: Sequence[str]) -> bool:
    try:
        numbers = [float(v) for v in values]
    except ValueError:
        return False
    return any("." in v for v in values) or any(n < 0 for n in numbers)

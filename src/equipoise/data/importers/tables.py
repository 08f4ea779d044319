"""Tables with one row a sample: read strictly, columns renamed, labels recognised."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array
from equipoise.data.importers.npz import labels_of


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


def guess_task(values: Sequence[str], bounds: tuple[float, float] | None) -> str:
    """Regression where labels have bounds, or all are numbers and one has a point or a sign; else classification."""
    return "regression" if bounds or _decimals(values) else "classification"


def parse_labels(
    values: Sequence[str], task: str, classes: Sequence[str] | None, where: str
) -> tuple[Array, list[str] | None]:
    """``[N]`` float32, or ``[N]`` class indices and the names of the classes.

    Raises:
        DataError: what is no number, no class, or no task; one line that names ``where``.
    """
    if task == "regression":
        try:
            array = np.array([float(v) for v in values], dtype=np.float32)
        except ValueError as error:
            raise DataError(f"{where} should hold numbers: {error}.") from None
        return array, None
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

"""A CSV (or TSV) with one row a sample: ``id``, ``split``, ``label``, and optionally ``text``, ``speaker``, ``group``,
``label_<modality>``. Every other column is a modality: the path of an ``.npy`` or ``.npz`` feature file ``[T, d]``,
relative to the CSV; an empty cell means that the sample lacks the modality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array, ImportedData, Rows
from equipoise.data.importers._files import load_array
from equipoise.data.importers.tables import read_columns, read_splits, table_labels

COLUMNS = ("id", "split", "label", "text", "speaker", "group")


def read(
    path: Path,
    *,
    map: Mapping[str, str] | None = None,
    split: str | None = None,
    split_values: Mapping[str, str] | None = None,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    label_range: tuple[float, float] | None = None,
    scale: str | None = None,
) -> ImportedData:
    """Read a CSV; feature files are read one at a time.

    Args:
        path: the file; ``.tsv`` is tab-separated.
        map: the name here to the file's column, such as ``{"label": "sentiment"}``.
        split: train, valid or test for all rows, where the file has no split column.
        split_values: the file's values to train, valid or test.
        task: regression or classification; by default regression where every label is a number with a point or sign,
            or ``scale`` or ``label_range`` is given.
        classes: names of the classes in order.
        label_range: least and greatest label.
        scale: ``"mosi"`` or ``"sims"``, whose range it implies.

    """
    columns = read_columns(path, map)
    for key in ("id", "label"):
        if key not in columns:
            raise DataError(f"{path} has no column `{key}`. It has: {', '.join(columns)}.")
    splits = read_splits(columns, path, split, split_values)
    if splits is None:
        raise DataError(
            f"{path} has no column `split`. Name one, `--map split=COLUMN`, or one for all, `--split train`."
        )
    files = [name for name in columns if name not in COLUMNS and not name.startswith("label_")]
    labels = table_labels(columns, files, path, task=task, classes=classes, label_range=label_range, scale=scale)
    modalities = {name: _features(path, columns["id"], name, columns[name]) for name in files}
    if not modalities and "text" not in columns:
        raise DataError(f"{path} has neither text nor a modality. It has: {', '.join(columns)}.")
    return ImportedData(
        name=path.stem,
        source=path.name,
        task=labels.task,
        modalities=modalities,
        labels=labels.values,
        ids=columns["id"],
        splits=splits,
        label_range=label_range,
        classes=labels.classes,
        scale=labels.scale,
        texts=columns.get("text"),
        groups=columns.get("group"),
        speakers=columns.get("speaker"),
        unimodal_labels=labels.unimodal or None,
        assumptions=labels.assumptions,
    )


def _features(path: Path, ids: Sequence[str], modality: str, cells: Sequence[str]) -> Rows:
    first = next((i for i, cell in enumerate(cells) if cell.strip()), None)
    if first is None:
        raise DataError(f"{path}: column `{modality}` is empty.")

    def load(i: int) -> Array:
        return load_array(path.parent / cells[i].strip(), f"{path}: {ids[i]}: {modality}")

    empty = np.zeros((0, load(first).shape[1]), dtype=np.float32)
    return Rows(len(cells), lambda: (load(i) if cell.strip() else empty for i, cell in enumerate(cells)))

"""A NumPy archive: ``id``, ``label``, ``split``, optionally ``text``, ``speaker``, ``group``, and one array a modality.

A modality is ``[N, T, d]`` or ``[N, d]`` (one frame), with ``<modality>_lengths [N]`` where samples are padded;
``label_<modality>`` are labels of that modality alone. Further axes are flattened into the width. Keys that end in
``_train``, ``_valid`` (``_val``, ``_dev``) and ``_test`` are joined, and give the split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import (
    SPLIT_NAMES,
    Array,
    ImportedData,
    Rows,
    agree,
    checked_scale,
    class_indices,
    numeric,
    refuse_split,
    split_name,
    strings,
    trimmed,
)

COLUMNS = ("id", "label", "split", "text", "speaker", "group")


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
    """Read a NumPy archive.

    Args:
        path: the file.
        map: the name here to the file's key, such as ``{"audio": "mfcc", "label": "y"}``.
        split: train, valid or test for all rows, where the file has no split.
        split_values: the file's values to train, valid or test, such as ``{"3": "test"}``.
        task: regression or classification; by default classification for whole numbers and strings.
        classes: names of the classes in order.
        label_range: least and greatest label.
        scale: ``"mosi"`` or ``"sims"``, whose range it implies.

    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:
        # zipfile, numpy and zlib each raise their own on a damaged file or one that holds pickled objects
        raise DataError(f"{path} is not a plain .npz file: {' '.join(str(error).split())}") from None
    arrays, counts = _joined(arrays, str(path))
    names = {**{key: key for key in arrays}, **(map or {})}
    for name, key in (map or {}).items():
        if key not in arrays:
            raise DataError(f"{path} has no key `{key}` for `{name}`. It has: {', '.join(arrays)}.")
    taken = set((map or {}).values())
    values = {name: arrays[key] for name, key in names.items() if name in (map or {}) or key not in taken}
    if "label" not in values:
        raise DataError(f"{path} has no key `label`. Name one: `--map label=KEY`. It has: {', '.join(arrays)}.")
    n = len(values["label"])

    if counts or "split" in values:
        refuse_split(split, str(path))
    if counts and "split" not in (map or {}):
        splits = [name for name, count in counts.items() for _ in range(count)]
    elif "split" in values:
        known = dict(split_values or {})
        splits = [split_name(known.get(v, v), f"{path}: split") for v in strings(values["split"], f"{path}: split")]
    elif split:
        splits = [split_name(split, "Parameter `split`")] * n
    else:
        raise DataError(
            f"{path} has no key `split`. Name one, `--map split=KEY`, or one for all rows, `--split train`."
        )

    modalities, ignored = _modalities(values, n, map or {}, str(path))
    ids = strings(values["id"], f"{path}: id") if "id" in values else [f"{path.stem}_{i}" for i in range(n)]
    columns = {key: strings(values[key], f"{path}: {key}") for key in ("text", "speaker", "group") if key in values}
    if "text" in modalities:
        columns.pop("text", None)
    sizes = {name: len(rows) for name, rows in modalities.items()}
    agree(str(path), label=n, split=len(splits), id=len(ids), **sizes, **{k: len(v) for k, v in columns.items()})
    kind, labels, class_names = labels_of(values["label"], task, classes, str(path))
    single = {
        m: labels_of(values[f"label_{m}"], kind, class_names, str(path))[1]
        for m in modalities
        if f"label_{m}" in values
    }
    return ImportedData(
        name=path.stem,
        source=path.name,
        task="classification" if kind == "classification" else "regression",
        modalities=modalities,
        labels=labels,
        ids=ids,
        splits=splits,
        label_range=label_range,
        classes=class_names,
        scale=checked_scale(scale),
        texts=columns.get("text"),
        groups=columns.get("group"),
        speakers=columns.get("speaker"),
        unimodal_labels=single or None,
        assumptions=(f"not read: {', '.join(ignored)}",) if ignored else (),
    )


def labels_of(
    values: Array, task: str | None, classes: Sequence[str] | None, where: str
) -> tuple[str, Array, list[str] | None]:
    """Task, labels and class names: whole numbers and strings are classes unless ``task`` says regression."""
    if task not in (None, "regression", "classification"):
        raise DataError(f"Parameter `task` should be regression or classification. Found `task = {task!r}`.")
    kind = task or ("classification" if values.dtype.kind in "biuUS" else "regression")
    if kind == "regression":
        return kind, numeric(values, f"{where}: label").astype(np.float32), None
    flat = values.reshape(len(values), -1)
    if flat.shape[1] != 1:
        raise DataError(f"{where}: label should be one class a sample. Found shape {values.shape}.")
    whole = flat[:, 0]
    if whole.dtype.kind == "f":
        if not np.array_equal(whole, np.floor(whole)):
            raise DataError(f"{where}: labels are not whole numbers, so they are no classes. Set `--task regression`.")
        whole = whole.astype(np.int64)
    if whole.dtype.kind in "biu" and classes:
        # Numbers with given names are indices into them.
        if whole.min() < 0 or whole.max() >= len(classes):
            raise DataError(f"{where}: label {whole.max()} is outside the {len(classes)} classes.")
        return kind, whole.astype(np.int64), list(classes)
    indices, names = class_indices(strings(whole, f"{where}: label"), classes, f"{where}: label")
    return kind, indices, names


def _joined(arrays: dict[str, Array], where: str) -> tuple[dict[str, Array], dict[str, int]]:
    parts: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        base, _, ending = key.rpartition("_")
        if base and ending in SPLIT_NAMES:
            parts.setdefault(base, {})[SPLIT_NAMES[ending]] = array
    if not parts or not all("train" in part for part in parts.values()):
        return arrays, {}
    counts: dict[str, int] = {}
    for split in ("train", "valid", "test"):
        sizes = {f"{base}_{split}": len(part[split]) for base, part in parts.items() if split in part}
        if sizes:
            if len(sizes) < len(parts):
                raise DataError(f"{where}: split {split} has {', '.join(sizes)} but not the other keys.")
            counts[split] = agree(where, **sizes)
    joined = {base: np.concatenate([part[split] for split in counts]) for base, part in parts.items()}
    return joined, counts


def _modalities(
    values: Mapping[str, Array], n: int, given: Mapping[str, str], where: str
) -> tuple[dict[str, list[Array] | Rows], list[str]]:
    found: dict[str, list[Array] | Rows] = {}
    ignored = []
    for name, array in values.items():
        reserved = (name in COLUMNS and not (name == "text" and array.ndim >= 2)) or name.startswith("label_")
        if reserved or name.endswith("_lengths"):
            continue
        usable = array.ndim >= 2 and array.dtype.kind in "biuf"
        if name in given and not usable:
            raise DataError(f"{where}: `{given[name]}` should be [N, T, d] or [N, d] numbers. Found {array.shape}.")
        if not usable or (len(array) != n and name not in (*given, "audio", "vision", "text")):
            ignored.append(name)
            continue
        agree(where, label=n, **{name: len(array)})
        lengths = values.get(f"{name}_lengths")
        if array.ndim == 2:
            if lengths is not None:
                raise DataError(f"{where}: `{name}` is [N, d], one frame a sample; `{name}_lengths` does not apply.")
            found[name] = _flat(array[:, None])
        elif lengths is not None:
            found[name] = trimmed(array.reshape(n, array.shape[1], -1), lengths, f"{where}: {name}")
        elif array.ndim == 3:
            found[name] = trimmed(array, None, f"{where}: {name}")
        else:
            found[name] = _flat(array)
    if not found and "text" not in values:
        raise DataError(f"{where} has no modality: an array [N, T, d] or [N, d]. It has: {', '.join(values)}.")
    return found, ignored


def _flat(array: Array) -> Rows:
    return Rows(len(array), lambda: (row.reshape(len(row), -1) for row in array))

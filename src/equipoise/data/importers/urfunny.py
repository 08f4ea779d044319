"""UR-FUNNY version 2 as released: a folder of pickles, each a dict from id to features.

``data_folds.pkl`` ({train, dev, test} → ids), ``language_sdk.pkl`` (``punchline_sentence``, ``context_sentences``,
``punchline_embedding_indexes``, ``context_embedding_indexes``), ``humor_label_sdk.pkl`` (0 or 1),
``covarep_features_sdk.pkl`` and ``openface_features_sdk.pkl`` (``punchline_features [T, 81 or 371]``,
``context_features`` one of these a sentence), and optionally ``word_embedding_list.pkl`` (``[V, 300]``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import (
    Array,
    ImportedData,
    Rows,
    agree,
    need,
    numeric,
    string,
    strings,
    three_splits,
)
from equipoise.data.importers._context import checked_context, join_frames, join_text
from equipoise.data.unpickle import load_pickle

FILES = {"audio": "covarep_features_sdk.pkl", "vision": "openface_features_sdk.pkl"}


def recognise(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / "data_folds.pkl").is_file()


def read(path: Path, *, context: str = "prepend") -> ImportedData:
    """Read a UR-FUNNY folder.

    Args:
        path: the folder.
        context: ``"prepend"`` puts the context's words and frames before the punchline's; ``"drop"`` leaves them out.

    """
    checked_context(context)
    for name in ("data_folds.pkl", "language_sdk.pkl", "humor_label_sdk.pkl"):
        if not (path / name).is_file():
            raise DataError(f"{path} has no {name}. A UR-FUNNY folder needs it.")
    keys: list[Any] = []
    splits: list[str] = []
    for key, split, members in three_splits(load_pickle(path / "data_folds.pkl"), str(path / "data_folds.pkl")):
        if not len(members):
            raise DataError(f"{path / 'data_folds.pkl'}: {key}: the split is empty.")
        keys += list(members)
        splits += [split] * len(members)
    language = load_pickle(path / "language_sdk.pkl")
    labels_by_id = load_pickle(path / "humor_label_sdk.pkl")

    texts, labels = [], []
    for key in keys:
        where = f"{path / 'language_sdk.pkl'}: {key}"
        entry = need(language, key, str(path / "language_sdk.pkl"))
        before = strings(need(entry, "context_sentences", where), f"{where}: context_sentences")
        texts.append(join_text(context, before, _sentence(need(entry, "punchline_sentence", where))))
        label = numeric(need(labels_by_id, key, str(path / "humor_label_sdk.pkl")), f"label of {key}").reshape(-1)
        if len(label) != 1 or label[0] not in (0, 1):
            raise DataError(f"{path / 'humor_label_sdk.pkl'}: {key}: the label should be 0 or 1. Found {label}.")
        labels.append(int(label[0]))

    modalities: dict[str, Iterable[Array]] = {}
    if (path / "word_embedding_list.pkl").is_file():
        modalities["text"] = _word_vectors(path, language, keys, context)
    for name, file in FILES.items():
        if (path / file).is_file():
            modalities[name] = _features(path / file, keys, context)
    lengths = {name: [len(row) for row in rows] for name, rows in modalities.items()}
    for i, key in enumerate(keys):
        agree(f"{path}: {key}", **{name: counts[i] for name, counts in lengths.items()} or {"none": 0})
    return ImportedData(
        name="ur-funny",
        source=path.name,
        task="classification",
        modalities=modalities,
        labels=np.array(labels, dtype=np.int64),
        ids=[string(key) for key in keys],
        splits=splits,
        classes=("not humorous", "humorous"),
        texts=texts,
        extra={"context": context},
    )


def _sentence(value: Any) -> str:
    return " ".join(strings(value, "punchline_sentence")) if isinstance(value, (list, tuple)) else string(value)


def _features(file: Path, keys: Sequence[Any], context: str) -> list[Array]:
    content = load_pickle(file)
    rows = []
    for key in keys:
        entry, where = need(content, key, str(file)), f"{file}: {key}"
        before = need(entry, "context_features", where) if context == "prepend" else None
        joined = join_frames(context, before, need(entry, "punchline_features", where), where)
        rows.append(joined.astype(np.float32))
    return rows


def _word_vectors(path: Path, language: Mapping[Any, Any], keys: Sequence[Any], context: str) -> Rows:
    table = numeric(load_pickle(path / "word_embedding_list.pkl"), str(path / "word_embedding_list.pkl"))
    table = table.astype(np.float32)

    def vectors(key: Any) -> Array:
        where = f"{path / 'language_sdk.pkl'}: {key}"
        entry = language[key]
        words = list(need(entry, "punchline_embedding_indexes", where))
        if context == "prepend":
            sentences = need(entry, "context_embedding_indexes", where)
            words = [word for sentence in sentences for word in sentence] + words
        index = numeric(words, where).reshape(-1).astype(np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < len(table):
            raise DataError(f"{where}: a word index is outside the {len(table)} word vectors.")
        found: Array = table[index]
        return found

    return Rows(len(keys), lambda: (vectors(key) for key in keys))

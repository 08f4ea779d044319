"""The field's common pickle: ``aligned_50.pkl``, ``unaligned_50.pkl``, ``unaligned_39.pkl``.

``{train, valid, test}`` → ``raw_text``, ``id``, ``text [N, T, 768]``, ``text_bert [N, 3, T]`` (ids, mask, types),
``audio [N, T, d]``, ``vision [N, T, d]``, ``audio_lengths``, ``vision_lengths`` (unaligned only) and
``regression_labels``; CH-SIMS adds ``regression_labels_T``, ``_A``, ``_V``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import (
    Array,
    ImportedData,
    agree,
    checked_scale,
    need,
    numeric,
    strings,
    three_splits,
    trimmed,
    videos,
)
from equipoise.data.manifest import SCALE_RANGES
from equipoise.data.unpickle import load_pickle

UNIMODAL = {"text": "regression_labels_T", "audio": "regression_labels_A", "vision": "regression_labels_V"}


def recognise(content: Any) -> bool:
    """Whether a loaded pickle has this layout."""
    return isinstance(content, Mapping) and any(
        isinstance(part, Mapping) and "regression_labels" in part for part in content.values()
    )


def read(path: Path, *, content: Any = None, scale: str | None = None) -> ImportedData:
    """Read the common pickle.

    Args:
        path: the file.
        content: the file's content, if it has been loaded already.
        scale: ``"mosi"`` (labels in [-3, 3]) or ``"sims"`` ([-1, 1]); by default sims where the file has labels of
            single modalities, else mosi.

    """
    content = load_pickle(path) if content is None else content
    parts = three_splits(content, str(path))
    modalities: dict[str, list[Array]] = {name: [] for name in ("text", "audio", "vision") if name in parts[0][2]}
    if not modalities:
        need(parts[0][2], "audio", f"{path}: {parts[0][0]}")
    columns: dict[str, list[str]] = {"id": [], "raw_text": [], "split": []}
    labels: list[Array] = []
    single: dict[str, list[Array]] = {name: [] for name, key in UNIMODAL.items() if key in parts[0][2]}
    has_text = "raw_text" in parts[0][2]
    for key, split, part in parts:
        where = f"{path}: {key}"
        ids = strings(need(part, "id", where), f"{where}: id")
        counts = {"id": len(ids)}
        for name, rows in modalities.items():
            padded = numeric(need(part, name, where), f"{where}: {name}")
            counts[name] = len(padded)
            rows += trimmed(padded, _lengths(part, name, padded), f"{where}: {name}")
        label = numeric(need(part, "regression_labels", where), f"{where}: regression_labels").reshape(-1)
        counts["regression_labels"] = len(label)
        if has_text:
            texts = strings(need(part, "raw_text", where), f"{where}: raw_text")
            counts["raw_text"] = len(texts)
            columns["raw_text"] += texts
        for name in single:
            value = numeric(need(part, UNIMODAL[name], where), f"{where}: {UNIMODAL[name]}").reshape(-1)
            counts[UNIMODAL[name]] = len(value)
            single[name].append(value)
        if agree(where, **counts) == 0:
            raise DataError(f"{where}: the split is empty.")
        labels.append(label)
        columns["id"] += ids
        columns["split"] += [split] * len(ids)

    chosen = checked_scale(scale) or ("sims" if single else "mosi")
    assumed = (
        () if scale else (f"labels are on the {chosen} scale, {list(SCALE_RANGES[chosen])}; `scale` says otherwise",)
    )
    return ImportedData(
        name=path.stem,
        source=path.name,
        task="regression",
        modalities=modalities,
        labels=np.concatenate(labels),
        ids=columns["id"],
        splits=columns["split"],
        scale=chosen,
        texts=columns["raw_text"] if has_text else None,
        groups=videos(columns["id"]),
        unimodal_labels={name: np.concatenate(values) for name, values in single.items()} or None,
        assumptions=assumed,
    )


def _lengths(part: Mapping[str, Any], name: str, padded: Array) -> Any:
    if f"{name}_lengths" in part:
        return part[f"{name}_lengths"]
    if name == "text" and "text_bert" in part:
        # Padding of the text is a vector like any other here; only the tokenizer's mask tells it apart.
        tokens = numeric(part["text_bert"], "text_bert")
        if tokens.ndim == 3 and tokens.shape[1] == 3 and tokens.shape[2] == padded.shape[1]:
            return tokens[:, 1].sum(axis=1)
    return None

"""UR-FUNNY and MUStARD as HKT and GLoMo use them: ``ur_funny.pkl``, ``mustard.pkl``.

``{train, dev, test}`` → list of ``((words, visual [T, 91], acoustic [T, 81], hcf [T, 4]), (the same for the context),
id, label)``; ``words`` is the punchline, the context's ``words`` a list of sentences; ``hcf`` are four humor features
a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array, ImportedData, agree, listed_samples, numeric, string, strings
from equipoise.data.importers._context import checked_context, join_frames, join_text
from equipoise.data.unpickle import load_pickle

MODALITIES = {"vision": 1, "audio": 2, "hcf": 3}


def recognise(content: Any) -> bool:
    """Whether a loaded pickle has this layout."""
    train = content.get("train") if isinstance(content, Mapping) else None
    return isinstance(train, (list, tuple)) and bool(train) and _is_sample(train[0])


def _is_sample(sample: Any) -> bool:
    return (
        isinstance(sample, (list, tuple))
        and len(sample) == 4
        and all(isinstance(part, (list, tuple)) and len(part) == 4 for part in sample[:2])
    )


def read(path: Path, *, content: Any = None, context: str = "prepend") -> ImportedData:
    """Read an HKT pickle.

    Args:
        path: the file.
        content: the file's content, if it has been loaded already.
        context: ``"prepend"`` puts the context's words and frames before the punchline's; ``"drop"`` leaves them out.

    """
    checked_context(context)
    content = load_pickle(path) if content is None else content
    modalities: dict[str, list[Array]] = {name: [] for name in MODALITIES}
    texts: list[str] = []
    ids: list[str] = []
    splits: list[str] = []
    labels: list[int] = []
    for where, split, sample in listed_samples(content, str(path)):
        if not _is_sample(sample):
            raise DataError(f"{where} should be (utterance of 4 parts, context of 4 parts, id, label).")
        utterance, before, identity, label = sample
        rows = {n: join_frames(context, before[k], utterance[k], f"{where}: {n}") for n, k in MODALITIES.items()}
        agree(where, **{name: len(row) for name, row in rows.items()})
        for name, row in rows.items():
            modalities[name].append(row)
        sentences = [before[0]] if isinstance(before[0], str) else strings(before[0], f"{where}: context words")
        texts.append(join_text(context, sentences, string(utterance[0])))
        ids.append(string(identity))
        splits.append(split)
        value = numeric(label, f"{where}: label").reshape(-1)
        if len(value) != 1 or value[0] not in (0, 1):
            raise DataError(f"{where}: the label should be 0 or 1. Found {label!r}.")
        labels.append(int(value[0]))
    name = path.stem.lower()
    what = "humorous" if "funny" in name else "sarcastic" if "mustard" in name or "sarcas" in name else None
    return ImportedData(
        name=path.stem,
        source=path.name,
        task="classification",
        modalities=modalities,
        labels=np.array(labels, dtype=np.int64),
        ids=ids,
        splits=splits,
        classes=(f"not {what}", what) if what else ("0", "1"),
        texts=texts,
        extra={"context": context},
    )

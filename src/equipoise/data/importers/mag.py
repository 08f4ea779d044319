"""The pickle of MAG and GLoMo: ``mosi.pkl``, ``mosei.pkl``.

``{train, dev, test}`` → list of ``((words, visual [T, 47], acoustic [T, 74]), label, segment)``, word-aligned; the
label is a number or an array whose first entry is the sentiment.
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
    frames,
    listed_samples,
    numeric,
    string,
    strings,
    videos,
)
from equipoise.data.unpickle import load_pickle


def recognise(content: Any) -> bool:
    """Whether a loaded pickle has this layout."""
    train = content.get("train") if isinstance(content, Mapping) else None
    return isinstance(train, (list, tuple)) and bool(train) and _is_sample(train[0])


def _is_sample(sample: Any) -> bool:
    return (
        isinstance(sample, (list, tuple))
        and len(sample) == 3
        and isinstance(sample[0], (list, tuple))
        and len(sample[0]) == 3
    )


def read(path: Path, *, content: Any = None, scale: str | None = None) -> ImportedData:
    """Read a MAG or GLoMo pickle.

    Args:
        path: the file.
        content: the file's content, if it has been loaded already.
        scale: ``"mosi"`` (the default; labels in [-3, 3]) or ``"sims"``.

    """
    content = load_pickle(path) if content is None else content
    audio: list[Array] = []
    vision: list[Array] = []
    texts: list[str] = []
    ids: list[str] = []
    splits: list[str] = []
    labels: list[float] = []
    for where, split, sample in listed_samples(content, str(path)):
        if not _is_sample(sample):
            raise DataError(f"{where} should be ((words, visual, acoustic), label, segment).")
        (words, visual, acoustic), label, segment = sample
        spoken = [words] if isinstance(words, str) else strings(words, f"{where}: words")
        visual, acoustic = frames(visual, f"{where}: visual"), frames(acoustic, f"{where}: acoustic")
        agree(where, visual=len(visual), acoustic=len(acoustic))
        if not isinstance(words, str) and len(words) > len(visual):
            raise DataError(f"{where}: lengths disagree: words {len(words)}, visual {len(visual)}.")
        value = numeric(label, f"{where}: label").reshape(-1)
        if not len(value):
            raise DataError(f"{where}: the label is empty.")
        audio.append(acoustic)
        vision.append(visual)
        texts.append(" ".join(spoken))
        ids.append(string(segment))
        splits.append(split)
        labels.append(float(value[0]))
    chosen = checked_scale(scale) or "mosi"
    return ImportedData(
        name=path.stem,
        source=path.name,
        task="regression",
        modalities={"audio": audio, "vision": vision},
        labels=np.array(labels, dtype=np.float32),
        ids=ids,
        splits=splits,
        scale=chosen,
        texts=texts,
        groups=videos(ids),
        assumptions=("where a label has several entries, the first is the sentiment",),
    )

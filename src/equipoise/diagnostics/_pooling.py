"""Sequences and transcripts of any length as vectors of one, for predictors that know no time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from equipoise.data import DataError, Dataset

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

PARTS = 4
WORDS = 2000
_PIECE = 256  # rows read at a time


def pooled(dataset: Dataset, modality: str, rows: Array) -> Floats:
    """Sequences of any length as vectors of one: ``[n, 5 d + 1]``, or ``[n, d + 1]`` where all have one frame.

    The means of four equal parts of the sequence (which overlap by a frame where its length can't be divided, and are
    the same frames where it is shorter than four), the standard deviation over all its frames, and whether the sample
    has the modality at all; zeros where it doesn't.

    Args:
        dataset: that holds them.
        modality: with features, not token ids.
        rows: ``[n]`` row numbers.
    """
    ragged, width = dataset.ragged(modality), dataset.manifest.modalities[modality].dim
    if not width:
        raise DataError(f"Modality {modality!r} holds token ids, which can't be pooled.")
    single = dataset.manifest.modalities[modality].longest == 1
    found = np.zeros((len(rows), (1 if single else PARTS + 1) * width + 1))
    for start in range(0, len(rows), _PIECE):
        values, mask = ragged.padded(rows[start : start + _PIECE])
        length = mask.sum(axis=1)
        x = np.where(mask[..., None], values, 0).astype(np.float64)
        total = np.concatenate([np.zeros_like(x[:, :1]), x.cumsum(axis=1)], axis=1)
        at = np.arange(len(x))
        means = []
        for part in range(1 if single else PARTS):
            first, last = part * length // PARTS, -(-(part + 1) * length // PARTS)
            means.append((total[at, last] - total[at, first]) / np.maximum(last - first, 1)[:, None])
        mean = x.sum(axis=1) / np.maximum(length, 1)[:, None]
        around = np.where(mask[..., None], x - mean[:, None], 0)
        std = np.sqrt(np.square(around).sum(axis=1) / np.maximum(length, 1)[:, None])
        columns = [*means, *([] if single else [std]), (length > 0)[:, None]]
        found[start : start + _PIECE] = np.hstack(columns)
    return found


def words_of(dataset: Dataset, rows: Sequence[Array]) -> list[Floats]:
    """Transcripts as TF-IDF of the `WORDS` most frequent words in the first rows, ``[n, words]`` for each rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = cast(list[str], dataset.texts)
    bags = TfidfVectorizer(min_df=2, max_features=WORDS, sublinear_tf=True)
    try:
        bags.fit([texts[row] for row in rows[0]])
    except ValueError:  # no word stands in two transcripts
        return [np.zeros((len(each), 1)) for each in rows]
    return [bags.transform([texts[row] for row in each]).toarray() for each in rows]

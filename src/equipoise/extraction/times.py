"""When the frames of an extracted dataset are: kept beside the features as arrays of one row a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from equipoise.data import Dataset
from equipoise.features.transcript import Word

Times = npt.NDArray[np.float64]
SUFFIX, WORDS = "_times", "word_times"
TOLERANCE = 1e-4
"""Seconds by which the time of an evenly spaced frame may be off."""


def times_array(times: Callable[[], Iterable[Times]], rates: Sequence[float]) -> Times:
    """The times of one modality's frames, short where they are evenly spaced.

    Args:
        times: gives ``[T]`` seconds of each sample's frames, one sample after the other; T is 0 where it has none.
        rates: frames a second of each sample, 0 where they are not evenly spaced.

    Returns:
        ``[N, 2]``, the time of the first frame and the frames a second, if that tells all; else ``[N, 2 + T]``, two NaN
        and then the times of all frames. NaN where there is no frame.
    """
    table = np.full((len(rates), 2), np.nan)
    for row, (values, rate) in enumerate(zip(times(), rates, strict=True)):
        if not len(values):
            continue
        if not rate or np.abs(values - values[0] - np.arange(len(values)) / rate).max() > TOLERANCE:
            break
        table[row] = values[0], rate
    else:
        return table
    full = np.full((len(rates), 2 + max(map(len, times()))), np.nan)
    for row, values in enumerate(times()):
        full[row, 2 : 2 + len(values)] = values
    return full


def frame_times(dataset: Dataset, modality: str, row: int) -> Times:
    """When each frame of a sample is.

    Args:
        dataset: made by `equipoise.extraction.dataset.extract_dataset`.
        modality: one of it.
        row: of the sample.

    Returns:
        ``[T]`` seconds from the start of the clip (of its segment) to the middle of each frame.

    Raises:
        DataError: the dataset keeps no times of the modality.
    """
    known = dataset.array(f"{modality}{SUFFIX}")[row]
    frames = int(dataset.ragged(modality).lengths(np.array([row]))[0])
    if len(known) > 2:
        return np.array(known[2 : 2 + frames])
    return np.asarray(known[0] + np.arange(frames) / known[1] if frames else np.zeros(0))


def words_array(words: Sequence[Sequence[Word] | None]) -> Times | None:
    """``[N, W, 2]`` seconds of the start and the end of each word, NaN behind the last; None where none are known."""
    most = max((len(each) for each in words if each), default=0)
    if not most:
        return None
    table = np.full((len(words), most, 2), np.nan)
    for row, each in enumerate(words):
        for place, word in enumerate(each or ()):
            table[row, place] = word.start, word.end
    return table

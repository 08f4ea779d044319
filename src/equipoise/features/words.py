"""Features averaged over each spoken word: every modality in steps of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipoise.features.stream import FeatureStream, no_frames
from equipoise.features.transcript import Word


def pool_to_words(stream: FeatureStream, words: Sequence[Word]) -> FeatureStream:
    """The mean of a stream's frames in each word.

    A frame belongs to a word if its time lies in ``[start, end)``; words may overlap or leave gaps. A word shorter than
    the distance of two frames may hold none: it takes the frame that its middle falls into (half a frame to either
    side). Where there is no such frame either, as after the end of a track, the word's row is zero, and a note says
    how many there are.

    Args:
        stream: ``[T, d]``. One without frames stays as it is.
        words: W of them.

    Returns:
        ``[W, d]`` with the middles of the words as times, and a rate of 0. ``absent`` where there is no word, or none
        with a frame.

    Raises:
        ValueError: words whose middles don't rise.
    """
    dim = stream.values.shape[1]
    if stream.absent:
        return stream
    if not words:
        return no_frames(dim, "no spoken word with a time")
    middles = np.array([(word.start + word.end) / 2 for word in words])
    if (np.diff(middles) < 0).any():
        late = words[int(np.argmax(np.diff(middles) < 0)) + 1]
        raise ValueError(f"Parameter `words` should be in the order of their times. Found {late.text!r} too late.")
    first = np.searchsorted(stream.times, [word.start for word in words])
    last = np.searchsorted(stream.times, [word.end for word in words])
    values = np.zeros((len(words), dim), np.float32)
    empty = 0
    for row, (begin, end) in enumerate(zip(first, last, strict=True)):
        if begin == end:
            begin = int(np.argmin(np.abs(stream.times - middles[row])))
            if not stream.rate or abs(stream.times[begin] - middles[row]) > 0.5 / stream.rate + 1e-9:
                empty += 1
                continue
            end = begin + 1
        values[row] = stream.values[begin:end].mean(axis=0, dtype=np.float64)
    if empty == len(words):
        return no_frames(dim, "no frame in any spoken word")
    notes = (*stream.notes, f"{empty} of {len(words)} words without a frame") if empty else stream.notes
    return FeatureStream(values, middles, 0.0, notes=notes)

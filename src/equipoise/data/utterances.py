"""Sequences and transcripts that show given latents; the parts of `synthetic`."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NUISANCES = 8
_PIECE = 4096  # utterances made at a time, where they are small
_VALUES = 2**25  # features made at a time, at most, unless one utterance has more
_WIDE = 256  # from here on only the directions that are used are drawn: a square of them would not fit

_VERDICTS = ("dreadful", "awful", "bad", "weak", "average", "decent", "good", "great", "wonderful")
_CROWD = ("booed", "left", "sighed", "yawned", "sat", "nodded", "smiled", "clapped", "cheered")
_DAYS = ("yesterday", "today")
_FILLERS = ("well", "so", "you", "know", "i", "mean", "like", "honestly", "um", "really", "just", "anyway")


def bumps(random: np.random.Generator, counts: Array) -> Array:
    """``[ΣT]`` how much each frame shows: a wave of one period, between .5 and 1.5, of mean 1 over each utterance."""
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    steps = np.arange(len(starts)) - starts
    phases = np.repeat(random.uniform(0, 2 * np.pi, len(counts)), counts)
    waves = 1 + 0.5 * np.cos(2 * np.pi * steps / np.repeat(counts, counts) - phases)
    means = np.add.reduceat(waves, np.cumsum(counts) - counts) / counts  # 1 but for the shortest
    level: Array = waves / np.repeat(means, counts)
    return level.astype(np.float32)


def sequences(
    random: np.random.Generator, signals: Array, counts: Array, waves: Array, dim: int, noise: float
) -> Iterator[Array]:
    """One ``[T, d]`` array an utterance: signals along some directions, nuisances along others, white noise.

    Args:
        signals: ``[N, S]`` what to show along the first S directions.
        counts: ``[N]`` frames of each utterance.
        waves: ``[ΣT]`` how much each frame shows of the signals.
        dim: features a frame.
        noise: standard deviation of the white noise.
    """
    width = signals.shape[1]
    nuisances = min(NUISANCES, dim - width)
    drawn = np.linalg.qr(random.standard_normal((dim, dim if dim < _WIDE else width + nuisances)))[0]
    directions = (drawn if dim < _WIDE else drawn.T).astype(np.float32)
    ends = np.cumsum(counts)
    size = min(_PIECE, max(1, _VALUES // (dim * int(counts.max()))))
    for start in range(0, len(counts), size):
        piece = slice(start, start + size)
        own = counts[piece]
        first = ends[start] - counts[start]
        shown = (signals[piece].astype(np.float32) @ directions[:width]).repeat(own, axis=0)
        shown *= waves[first : first + len(shown), None]
        hidden = random.standard_normal((len(own), nuisances), dtype=np.float32)
        shown += (hidden @ directions[width : width + nuisances]).repeat(own, axis=0)
        shown += noise * random.standard_normal(shown.shape, dtype=np.float32)
        yield from np.split(shown, np.cumsum(own)[:-1])


def transcripts(random: np.random.Generator, alone: Array, shared: Array, sign: Array, counts: Array) -> list[str]:
    """A sentence an utterance: a word tells the ninth that ``alone`` is in, one that of ``shared``, one ``sign``."""
    cuts = np.array([NormalDist().inv_cdf(i / 9) for i in range(1, 9)])
    levels = zip(np.searchsorted(cuts, alone), np.searchsorted(cuts, shared), (sign > 0).astype(int), strict=True)
    fillers = np.array(_FILLERS)[random.integers(0, len(_FILLERS), int(counts.sum()))].tolist()
    sentences, used = [], 0
    for (verdict, crowd, day), count in zip(levels, counts.tolist(), strict=True):
        words = [
            *fillers[used : used + count],
            "the film was",
            _VERDICTS[verdict],
            "the crowd",
            _CROWD[crowd],
            _DAYS[day],
        ]
        sentences.append(" ".join(words))
        used += count
    return sentences

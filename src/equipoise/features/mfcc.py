"""Mel-frequency cepstral coefficients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from equipoise.features.audio_frames import SAMPLE_RATE, Frames, audio_stream_of, frames_to_average, watched
from equipoise.features.spectra import WINDOW, log_mel, mel_filters
from equipoise.features.stream import FeatureStream

if TYPE_CHECKING:
    from equipoise.features.clip import Clip

_REACH = 2  # frames on either side of which a slope is taken
_PREFIXES = ("mfcc", "delta", "delta-delta")


class Mfcc:
    """The first coefficients of the cosine transform of log-mel spectra, with their slopes, averaged over time.

    Windows of 25 ms every 10 ms at 16 kHz; the orthonormal DCT-II of the log-mel spectrum, from the zeroth coefficient
    on. A slope is the regression over two frames on either side, as HTK has it; before the first frame and behind the
    last one these are repeated. Slopes are taken at 10 ms, before averaging.

    Args:
        rate: frames a second of the result, a divisor of 100.
        coefficients: how many.
        deltas: 0 for coefficients alone, 1 with slopes, 2 with slopes of slopes too.
        bins: bands of the mel scale.
        low: Hz at which the first band begins.
        high: Hz at which the last one ends.

    Raises:
        ValueError: a rate that is no divisor of 100, more coefficients than bands, or bands that can't be.
    """

    modality = "audio"

    def __init__(
        self,
        *,
        rate: float = 25.0,
        coefficients: int = 13,
        deltas: int = 2,
        bins: int = 40,
        low: float = 20.0,
        high: float = 7600.0,
    ) -> None:
        self._average = frames_to_average(rate)
        self._filters = mel_filters(bins, low, high)
        if not 1 <= coefficients <= bins:
            raise ValueError(f"Parameter `coefficients` should be in 1 to {bins}. Found {coefficients}.")
        if deltas not in (0, 1, 2):
            raise ValueError(f"Parameter `deltas` should be 0, 1 or 2. Found `deltas = {deltas}`.")
        self._cosines = _dct(bins)[:coefficients]
        self._deltas = deltas
        edges = {"low": float(low), "high": float(high)}
        counts = {"coefficients": coefficients, "deltas": deltas, "bins": bins}
        self._arguments = {"rate": float(rate), **counts, **edges}
        self.columns = tuple(f"{name}{i:02d}" for name in _PREFIXES[: deltas + 1] for i in range(coefficients))

    def settings(self) -> dict[str, Any]:
        """See :class:`equipoise.features.stream.Extractor`."""
        return {"name": "mfcc", "arguments": dict(self._arguments), "version": 1}

    def extract(self, clip: Clip) -> FeatureStream:
        """See :class:`equipoise.features.stream.Extractor`."""
        spectra = log_mel(watched(clip.audio(SAMPLE_RATE), clip), self._filters)
        batches: Iterable[Frames] = ((batch @ self._cosines.T).numpy() for batch in spectra)
        for _ in range(self._deltas):
            batches = with_slopes(batches, len(self._cosines))
        return audio_stream_of(clip, batches, len(self.columns), self._average, WINDOW / 2 / SAMPLE_RATE)


def with_slopes(batches: Iterable[Frames], newest: int) -> Iterator[Frames]:
    """Each frame with the slopes of its last ``newest`` columns appended.

    Args:
        batches: ``[k, d]`` each; how they are cut changes nothing.
        newest: columns.

    Yields:
        ``[k, d + newest]``, two frames behind what was given.
    """
    held: Frames | None = None
    for batch in batches:
        if len(batch):
            held = np.concatenate([np.repeat(batch[:1], _REACH, axis=0) if held is None else held, batch])
            if len(held) > 2 * _REACH:
                yield _append(held, newest)
                held = held[-2 * _REACH :]
    if held is not None:
        yield _append(np.concatenate([held, np.repeat(held[-1:], _REACH, axis=0)]), newest)


def _append(frames: Frames, newest: int) -> Frames:
    values, count = frames[:, -newest:], len(frames) - 2 * _REACH
    slope = np.zeros((count, newest), dtype=np.float32)
    for step in range(1, _REACH + 1):
        slope += step * (values[_REACH + step :][:count] - values[_REACH - step :][:count])
    slope /= 2 * sum(step * step for step in range(1, _REACH + 1))
    return np.concatenate([frames[_REACH : _REACH + count], slope], axis=1)


def _dct(size: int) -> Tensor:
    """``[size, size]``: the orthonormal DCT-II."""
    n = torch.arange(size, dtype=torch.float64)
    cosines = torch.cos(math.pi / size * (n + 0.5) * n[:, None]) * math.sqrt(2 / size)
    cosines[0] /= math.sqrt(2)
    return cosines.float()

"""The low-level descriptors of eGeMAPS, by openSMILE."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from equipoise.features.audio_frames import HOP, SAMPLE_RATE, Frames, audio_stream_of, frames_to_average, watched
from equipoise.features.stream import FeatureStream

if TYPE_CHECKING:
    from equipoise.features.clip import AudioBlock, Clip

LICENCE = "openSMILE: audEERING Research License, non-commercial use only"
_PIECE = 20 * SAMPLE_RATE  # samples given to openSMILE at a time
_AROUND = SAMPLE_RATE  # and so many before and behind them, in which its smoothing settles
_SHORTEST = 960  # samples: its longest window, 60 ms
_MIDDLE = 0.01  # seconds: openSMILE gives each frame the time of its 20 ms window

logger = logging.getLogger(__name__)


class Egemaps:
    """The 25 low-level descriptors of eGeMAPSv02 every 10 ms, averaged over time: loudness, spectral shape, four MFCC,
    pitch, jitter, shimmer, harmonics-to-noise ratio, formants.

    Eyben et al., The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for Voice Research and Affective Computing,
    IEEE Transactions on Affective Computing 7(2), 2016; computed by openSMILE 2.6 or later. **openSMILE may be used for
    non-commercial purposes only** (audEERING Research License); features and models made with it are yours to judge.

    Long audio is given to openSMILE in pieces of 20 s with one second around each. What depends on the voice is 0 where
    there is none, also inside an average; these descriptors look up to 60 ms ahead of the time that a frame has.

    Args:
        rate: frames a second of the result, a divisor of 100.

    Raises:
        ValueError: a rate that is no divisor of 100.
        ModuleNotFoundError: the extra ``egemaps`` is not installed.
    """

    modality = "audio"

    def __init__(self, *, rate: float = 25.0) -> None:
        self._average = frames_to_average(rate)
        self._rate = float(rate)
        self._version, self._smile = _opensmile()
        self.columns = tuple(str(name) for name in self._smile.column_names)

    def settings(self) -> dict[str, Any]:
        """See :class:`equipoise.features.stream.Extractor`."""
        return {"name": "egemaps", "arguments": {"rate": self._rate}, "opensmile": self._version, "licence": LICENCE}

    def extract(self, clip: Clip) -> FeatureStream:
        """See :class:`equipoise.features.stream.Extractor`."""
        batches = self._pieces(watched(clip.audio(SAMPLE_RATE), clip))
        return audio_stream_of(clip, batches, len(self.columns), self._average, _MIDDLE)

    def _pieces(self, blocks: Iterable[AudioBlock]) -> Iterator[Frames]:
        held = np.zeros(0, dtype=np.float32)
        before = 0  # samples of `held` whose frames were given already
        for block in blocks:
            held = np.concatenate([held, block.samples])
            while len(held) >= before + _PIECE + _AROUND:
                frames = self._process(held[: before + _PIECE + _AROUND])
                yield frames[before // HOP : (before + _PIECE) // HOP]
                held, before = held[before + _PIECE - _AROUND :], _AROUND
        if len(held) > before:
            yield self._process(held)[before // HOP :]

    def _process(self, samples: Frames) -> Frames:
        # It takes 16 bits and lets what is louder wrap around.
        samples = np.clip(np.pad(samples, (0, max(0, _SHORTEST - len(samples)))), -1.0, 1.0 - 2.0**-15)
        values = self._smile.process_signal(samples, SAMPLE_RATE).to_numpy()
        return np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)


@lru_cache(maxsize=1)
def _opensmile() -> tuple[str, Any]:
    try:
        import opensmile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('eGeMAPS is computed by openSMILE: pip install "equipoise[egemaps]"') from error
    logger.warning("eGeMAPS: %s.", LICENCE)
    level = opensmile.FeatureLevel.LowLevelDescriptors
    return str(opensmile.__version__), opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=level)

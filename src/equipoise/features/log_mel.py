"""Log-mel spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from equipoise.features.audio_frames import SAMPLE_RATE, audio_stream_of, frames_to_average, watched
from equipoise.features.spectra import WINDOW, log_mel, mel_filters
from equipoise.features.stream import FeatureStream

if TYPE_CHECKING:
    from equipoise.features.clip import Clip


class LogMel:
    """The logarithm of the energy in bands of the mel scale: windows of 25 ms every 10 ms at 16 kHz, then averaged.

    Args:
        rate: frames a second of the result, a divisor of 100.
        bins: bands.
        low: Hz at which the first band begins.
        high: Hz at which the last one ends.

    Raises:
        ValueError: a rate that is no divisor of 100, or bands that can't be.
    """

    modality = "audio"

    def __init__(self, *, rate: float = 25.0, bins: int = 80, low: float = 20.0, high: float = 7600.0) -> None:
        self._average = frames_to_average(rate)
        self._filters = mel_filters(bins, low, high)
        self._arguments = {"rate": float(rate), "bins": bins, "low": float(low), "high": float(high)}
        self.columns = tuple(f"mel{number:02d}" for number in range(bins))

    def settings(self) -> dict[str, Any]:
        """See :class:`equipoise.features.stream.Extractor`."""
        return {"name": "log-mel", "arguments": dict(self._arguments), "version": 1}

    def extract(self, clip: Clip) -> FeatureStream:
        """See :class:`equipoise.features.stream.Extractor`."""
        batches = (batch.numpy() for batch in log_mel(watched(clip.audio(SAMPLE_RATE), clip), self._filters))
        return audio_stream_of(clip, batches, len(self.columns), self._average, WINDOW / 2 / SAMPLE_RATE)

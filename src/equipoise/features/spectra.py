"""Short-time spectra on the mel scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equipoise.features.audio_frames import SAMPLE_RATE, windows

if TYPE_CHECKING:
    from equipoise.features.clip import AudioBlock

WINDOW = 400  # samples: 25 ms
_FFT = 1024  # the narrowest of 80 filters is wider than the distance of its bins
_FLOOR = 1e-10  # -100 dB of full scale: below it there is only the rounding of a recorder


def mel_filters(bins: int, low: float, high: float) -> Tensor:
    """``[bins, 513]``: triangles of height 1, evenly spaced in mel = 1127 ln(1 + f / 700), as HTK has them.

    A triangle ends where its neighbours have their peaks.

    Raises:
        ValueError: fewer than 2 filters, edges out of order, or so many filters that one holds no frequency.
    """
    if not 0 <= low < high <= SAMPLE_RATE / 2:
        raise ValueError(f"Parameters `low` and `high` should rise from 0 to {SAMPLE_RATE // 2}. Found {low}, {high}.")
    if not 2 <= bins <= 512:
        raise ValueError(f"Parameter `bins` should be in 2 to 512. Found `bins = {bins}`.")
    first, last = _mel(torch.tensor([low, high], dtype=torch.float64)).tolist()
    points = torch.linspace(first, last, bins + 2, dtype=torch.float64)
    bands = _mel(torch.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1, dtype=torch.float64))
    rising = (bands - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
    falling = (points[2:, None] - bands) / (points[2:] - points[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    if (filters.sum(dim=1) == 0).any():
        raise ValueError(f"Parameter `bins` should leave each filter a frequency. Found `bins = {bins}`.")
    return filters.float()


def log_mel(blocks: Iterable[AudioBlock], filters: Tensor) -> Iterator[Tensor]:
    """Log-mel spectra every 10 ms over 25 ms (Hann).

    The power |X(f)|² / Σ w² of white noise is its variance at every frequency; the filters add it up, and what is
    below 1e-10 counts as 1e-10 before the natural logarithm.

    Args:
        blocks: audio at 16 kHz from 0 on.
        filters: of :func:`mel_filters`.

    Yields:
        ``[k, bins]``, a hundred frames at a time.
    """
    window = torch.hann_window(WINDOW)
    for frames in windows(blocks, WINDOW):
        spectrum = torch.fft.rfft(torch.from_numpy(frames.copy()) * window, n=_FFT)
        power = spectrum.abs().square() / window.square().sum()
        yield (power @ filters.T).clamp(min=_FLOOR).log()


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)

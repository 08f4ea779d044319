"""What comes out of a clip, put so that a test can compare it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tests.features.clips import read_number

from equipoise.features.clip import Clip


def heard(clip: Clip, rate: int = 16000) -> npt.NDArray[np.float32]:
    """All samples; the blocks must follow each other without a hole."""
    blocks = list(clip.audio(rate))
    ends = np.cumsum([0, *(len(block.samples) for block in blocks)]) / rate
    np.testing.assert_allclose([block.start for block in blocks], ends[:-1], atol=1e-9)
    return np.concatenate([block.samples for block in blocks]) if blocks else np.zeros(0, np.float32)


def seen(clip: Clip, rate: float) -> list[int]:
    """The numbers of all pictures (`tests.features.clips.read_number`)."""
    return [read_number(picture.image) for picture in clip.pictures(rate)]


def power(sound: npt.NDArray[np.float32], hertz: float, rate: int = 16000) -> float:
    """Amplitude of one frequency."""
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(sound)) / rate)
    return float(2 * np.abs(np.mean(wave * sound)))

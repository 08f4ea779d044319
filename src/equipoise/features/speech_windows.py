"""Long audio in pieces that a recogniser takes at once, cut where it is quiet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from equipoise.features.clip import AudioBlock

LONGEST = 28.0  # seconds; Whisper reads 30
_HOP = 0.02  # seconds of which the loudness is taken
_SMOOTH = 10  # hops that a pause should last
_SILENCE = 1e-3  # root mean square of the loudest hop, -60 dB of full scale


def speech_windows(
    blocks: Iterable[AudioBlock], rate: int = 16000, longest: float = LONGEST
) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
    """Cut audio into windows that follow each other without a hole.

    A window ends at the quietest fifth of a second of its last third, so that few words are cut, wherever the blocks
    happen to end. Windows of silence are left out: recognisers invent words for them.

    Args:
        blocks: as `Clip.audio` gives them, each beginning where the last has ended.
        rate: samples a second.
        longest: seconds of a window at most.

    Yields:
        The start of each window in seconds, and its ``[n]`` samples.
    """
    most = round(longest * rate)
    kept: list[npt.NDArray[np.float32]] = []
    count = 0
    start: float | None = None
    for block in blocks:
        start = block.start if start is None else start
        kept.append(block.samples)
        count += len(block.samples)
        while count >= most:
            samples = np.concatenate(kept)
            cut = _quietest(samples[:most], rate)
            if not is_silent(samples[:cut], rate):
                yield start, samples[:cut]
            start += cut / rate
            kept, count = [samples[cut:]], len(samples) - cut
    if start is not None and count:
        samples = np.concatenate(kept)
        if not is_silent(samples, rate):
            yield start, samples


def is_silent(samples: npt.NDArray[np.float32], rate: int) -> bool:
    """Whether no 20 ms are louder than -60 dB of full scale."""
    return float(_energies(samples, rate).max()) < _SILENCE**2


def _quietest(samples: npt.NDArray[np.float32], rate: int) -> int:
    energies = _energies(samples, rate)
    first = len(energies) * 2 // 3
    pauses = np.convolve(energies[first:], np.ones(_SMOOTH), mode="valid")
    return (first + int(np.argmin(pauses)) + _SMOOTH // 2) * round(_HOP * rate)


def _energies(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
    """Mean square of each hop; what remains at the end counts as one."""
    hop = round(_HOP * rate)
    squares = np.square(samples, dtype=np.float64)
    starts = np.arange(0, len(samples), hop)
    return np.asarray(np.add.reduceat(squares, starts) / np.diff(starts, append=len(samples)))

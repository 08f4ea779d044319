"""What the extractors of audio share: samples to short windows, frames to a stream at the rate that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from equipoise.features.stream import FeatureStream, no_frames

if TYPE_CHECKING:
    from equipoise.features.clip import AudioBlock, Clip

SAMPLE_RATE = 16000  # of all audio that becomes features
HOP = 160  # samples from one window to the next: 10 ms
_FRAMES_A_SECOND = SAMPLE_RATE // HOP
_QUIET = 1e-4  # of full scale, -80 dB

Frames = npt.NDArray[np.float32]


def frames_to_average(rate: float) -> int:
    """How many frames of 10 ms one frame of the result describes.

    Raises:
        ValueError: no whole number of them.
    """
    count = round(_FRAMES_A_SECOND / rate) if rate > 0 else 0
    if count < 1 or abs(count * rate - _FRAMES_A_SECOND) > 1e-6:
        raise ValueError(f"Parameter `rate` should divide 100 frames a second (100, 50, 25, 20, 10, …). Found {rate}.")
    return count


def windows(blocks: Iterable[AudioBlock], size: int) -> Iterator[Frames]:
    """Overlapping windows, a hundred at a time whatever the blocks, so that sums over them come out the same.

    Args:
        blocks: audio from 0 on.
        size: samples of a window, one every `HOP`. Audio shorter than one is filled up with silence; samples behind
            the last whole window are left out.

    Yields:
        ``[k, size]``, k = 100 but for the last.
    """
    needed = size + HOP * (_FRAMES_A_SECOND - 1)
    held = np.zeros(0, dtype=np.float32)
    any_given = False
    for block in blocks:
        held = np.concatenate([held, block.samples])
        while len(held) >= needed:
            yield _cut(held[:needed], size)
            held, any_given = held[HOP * _FRAMES_A_SECOND :], True
    if len(held) and not any_given:
        held = np.pad(held, (0, max(0, size - len(held))))
    if len(held) >= size:
        yield _cut(held, size)


def _cut(samples: Frames, size: int) -> Frames:
    return np.lib.stride_tricks.sliding_window_view(samples, size)[::HOP]


def audio_stream_of(clip: Clip, batches: Iterable[Frames], dim: int, average: int, middle: float) -> FeatureStream:
    """Frames of 10 ms to a stream.

    Args:
        clip: where they come from.
        batches: ``[k, dim]`` each.
        dim: features of a frame.
        average: this many frames become one, their mean; the last mean may be over fewer.
        middle: seconds from the start of the clip to the middle of the first frame.
    """
    if not clip.has_audio:
        return no_frames(dim, "no audio track")
    sizes: list[int] = []

    def means() -> Iterator[Frames]:
        held = np.zeros((0, dim), dtype=np.float32)
        for batch in batches:
            held = np.concatenate([held, batch])
            whole = len(held) // average * average
            found = held[:whole].reshape(-1, average, dim).mean(axis=1)
            sizes.extend([average] * len(found))
            yield from found
            held = held[whole:]
        if len(held):
            sizes.append(len(held))
            yield held.mean(axis=0)

    # One array from the start: hours of blocks and their copy would take twice as much.
    values = np.asarray(np.fromiter(means(), np.dtype((np.float32, dim))), np.float32)
    if not sizes:
        return no_frames(dim, "no audio in the segment")
    first = np.cumsum([0, *sizes[:-1]])
    times = middle + (first + (np.asarray(sizes) - 1) / 2) / _FRAMES_A_SECOND
    return FeatureStream(values, times, _FRAMES_A_SECOND / average)


def watched(blocks: Iterable[AudioBlock], clip: Clip) -> Iterator[AudioBlock]:
    """The same blocks; the clip gets a note if all of them are silent."""
    loudest, count = 0.0, 0
    for block in blocks:
        loudest, count = max(loudest, float(np.abs(block.samples).max(initial=0.0))), count + len(block.samples)
        yield block
    if count and loudest < _QUIET:
        clip.note("audio: silent throughout (below -80 dB)")

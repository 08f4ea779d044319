"""A clip of sound and moving pictures: what it holds, its audio at one rate, its pictures at another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class MediaError(ValueError):
    """A file that can't be used as a clip; one line that says why, whatever the file's name."""

    def __init__(self, message: str) -> None:
        # A name may hold line breaks, and bytes that are no text.
        line = " ".join(message.splitlines())
        super().__init__(line.encode("utf-8", "backslashreplace").decode("utf-8"))


@dataclass(frozen=True, slots=True, eq=False)
class AudioBlock:
    """Some of the audio.

    Attributes:
        start: seconds from the start of the clip (of its segment) to the first sample.
        samples: ``[n]`` float32, mono, full scale at 1.
    """

    start: float
    samples: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What the clip shows at one moment.

    Attributes:
        time: seconds from the start of the clip (of its segment).
        image: ``[H, W, 3]`` uint8, RGB, upright, square pixels.
    """

    time: float
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip, or a segment of one; made by :func:`open_clip`. It keeps no file open.

    Attributes:
        path: the file.
        start, end: seconds of the file at which the segment begins and ends; 0 and the file's duration for all of it.
        facts: what the container says, as JSON: ``container``, ``bytes``, ``duration`` (seconds of the file),
            ``jumps`` (of the timestamps of a recording that was cut and joined), and ``audio`` (``codec``, ``rate``,
            ``channels``, ``layout``) and ``video`` (``codec``, ``width``, ``height``, ``frame_rate``, ``variable`` for
            a frame rate that varies, ``pixel_aspect``, ``rotation`` in degrees clockwise by which pictures are turned
            upright), each None where there is no such track.
        notes: what decoding met so far and a reader of the report should know: errors, a track that breaks off. It
            grows while :meth:`audio` and :meth:`pictures` are read.
    """

    path: Path
    start: float
    end: float
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def duration(self) -> float:
        """Seconds of the segment."""
        return self.end - self.start

    @property
    def has_audio(self) -> bool:
        """Whether there is an audio track."""
        return self.facts["audio"] is not None

    @property
    def has_video(self) -> bool:
        """Whether there is a track of moving pictures; the cover picture of a song is none."""
        return self.facts["video"] is not None

    def note(self, text: str) -> None:
        """Add to the notes what is not yet among them."""
        if text not in self.notes:
            self.notes.append(text)

    def audio(self, rate: int = 16000) -> Iterator[AudioBlock]:
        """The audio, in order and without a hole: where the track has nothing there are zeros, up to its last sample.

        Channels become one by the weights of ITU-R BS.775 (centre 1, left and right 0.71, surround 0.5, no LFE), which
        sum to 1. The sample rate is changed by one polyphase filter (Kaiser, 80 dB) for all formats. A segment gives
        the samples that the whole clip has there, up to the rounding of its timestamps (1 ms in WebM).

        Args:
            rate: samples a second.

        Yields:
            Blocks of about a second; none for a clip without an audio track. Memory does not grow with the clip.

        Raises:
            MediaError: nothing of the track can be decoded. What breaks off later ends the audio and becomes a note.
            ValueError: a rate below 1000 or above 192000.
        """
        from equipoise.features.audio_decoding import decode_audio

        if not 1000 <= rate <= 192000:
            raise ValueError(f"Parameter `rate` should be in 1000 to 192000. Found `rate = {rate}`.")
        yield from decode_audio(self, rate)

    def pictures(self, rate: float, longest_side: int | None = None) -> Iterator[Picture]:
        """What is shown at the middle of each 1/rate seconds, whatever the frame rate and however it varies.

        Args:
            rate: pictures a second; above the clip's own rate pictures repeat.
            longest_side: pixels; larger pictures are made smaller, smaller ones stay as they are.

        Yields:
            Pictures at (k + ½) / rate seconds for k = 0, 1, …, to within the 2 ms by which timestamps are rounded, and
            one at the middle of a clip that is over before the first; none for a clip without moving pictures, none
            before the first frame of the track nor after its last. Memory does not grow with the clip.

        Raises:
            MediaError: nothing of the track can be decoded. What breaks off later ends the pictures and becomes a note.
            ValueError: a rate that is not in (0, 240], or a longest side below 16.
        """
        from equipoise.features.picture_decoding import decode_pictures

        if not (math.isfinite(rate) and 0 < rate <= 240):
            raise ValueError(f"Parameter `rate` should be above 0 and at most 240. Found `rate = {rate}`.")
        if longest_side is not None and longest_side < 16:
            raise ValueError(f"Parameter `longest_side` should be at least 16. Found `longest_side = {longest_side}`.")
        yield from decode_pictures(self, rate, longest_side)


def open_clip(path: str | PathLike[str], *, start: float = 0.0, end: float | None = None) -> Clip:
    """Look into a file and describe it.

    Args:
        path: a file of sound, moving pictures, or both, that FFmpeg's decoders read.
        start: seconds at which the segment begins.
        end: seconds at which it ends; the end of the file by default, and if it lies behind that.

    Raises:
        MediaError: no such file, no media file, nothing to hear or see in it, or it ends before ``start``.
        ValueError: ``start`` below 0, or ``end`` not behind it.
        ModuleNotFoundError: the extra ``extract`` is not installed.
    """
    from equipoise.features.probe import probe

    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"Parameter `start` should be non-negative. Found `start = {start}`.")
    if end is not None and not end > start:
        raise ValueError(f"Parameter `end` should be greater than `start = {start}`. Found `end = {end}`.")
    facts = probe(Path(path))
    duration = float(facts["duration"])
    if start >= duration:
        raise MediaError(f"{path} ends at {duration:.3f} s, before its segment begins at {start:.3f} s.")
    return Clip(Path(path), float(start), duration if end is None else min(float(end), duration), facts)


def decoder() -> dict[str, str]:
    """Names and versions of what decodes clips, for a recipe: features can differ in the last digits between them.

    Raises:
        ModuleNotFoundError: the extra ``extract`` is not installed.
    """
    from equipoise.features.container import versions

    return versions()

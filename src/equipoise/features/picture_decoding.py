"""The pictures of a clip at one rate, from whatever frames there are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from equipoise.features.clip import MediaError, Picture
from equipoise.features.container import MAX_PIXELS
from equipoise.features.decoding import decode_frames
from equipoise.features.orientation import Matrix, display_matrix, turn

if TYPE_CHECKING:
    from equipoise.features.clip import Clip


_ROUNDING = 0.002  # seconds: timestamps in milliseconds must not decide between two frames


def decode_pictures(clip: Clip, rate: float, longest_side: int | None) -> Iterator[Picture]:
    """See :meth:`equipoise.features.clip.Clip.pictures`."""
    if not clip.has_video:
        return
    step = 1 / (clip.facts["video"]["frame_rate"] or 25.0)
    first = clip.start + min(0.5 / rate, clip.duration / 2)
    count = 0
    matrix: Matrix | None = None  # the first frame's counts for all: PyAV holds some memory for each that is asked
    for shown, until, frame in _intervals(clip, step):
        image = None
        while (moment := first + count / rate) < min(until - _ROUNDING, clip.end):
            if moment >= shown - _ROUNDING:
                if image is None:
                    matrix = display_matrix(frame) if matrix is None else matrix
                    image = _image(clip, frame, longest_side, matrix)
                yield Picture(moment - clip.start, image)
            count += 1
        if until >= clip.end:
            return
    if until < clip.end - max(1.0, 2 * step):
        clip.note(f"video: ends at {until:.2f} s of {clip.end:.2f} s")


def _intervals(clip: Clip, step: float) -> Iterator[tuple[float, float, Any]]:
    """Each frame, with the time at which it appears and the time at which the next one does."""
    held: tuple[float, Any] | None = None
    for time, frame in decode_frames(clip, "video", lead=0.0):
        if frame.width * frame.height > MAX_PIXELS:
            raise MediaError(f"{clip.path} has pictures of {frame.width} x {frame.height}; the limit is {MAX_PIXELS}.")
        if held is None:
            held = (0.0 if time is None else time, frame)
            continue
        time = held[0] + step if time is None else time
        if time <= held[0]:  # timestamps that step back: shown by none
            continue
        yield held[0], time, held[1]
        held = (time, frame)
    if held is not None:
        time, frame = held
        lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        yield time, time + max(lasts, step) + _ROUNDING, frame


def _image(clip: Clip, frame: Any, longest_side: int | None, matrix: Matrix) -> npt.NDArray[np.uint8]:
    width, height = frame.width * clip.facts["video"]["pixel_aspect"], float(frame.height)
    shrink = min(1.0, (longest_side or math.inf) / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    # Area averaging leaves no aliasing; it is for making smaller alone.
    how = "AREA" if shrink < 1 else "BICUBIC"
    rgb = frame.reformat(width=size[0], height=size[1], format="rgb24", interpolation=how, **_one_thread()).to_ndarray()
    image = turn(rgb, matrix)
    image.flags.writeable = False  # it may be shown again
    return image


@lru_cache(maxsize=1)
def _one_thread() -> dict[str, int]:
    """Clips are decoded side by side. From version 17 PyAV starts a thread a core for every picture, if not told."""
    import av

    return {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}

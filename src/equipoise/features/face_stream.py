"""What the extractors of faces share: descriptors of single pictures to a stream, with the gaps between faces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from equipoise.features.stream import FeatureStream, no_frames

if TYPE_CHECKING:
    from equipoise.features.clip import Clip

Row = npt.NDArray[np.float32]

PRESENCE = "presence"
HOLD = 0.5  # seconds: a blink of the detector, not a face that has gone


def face_stream(clip: Clip, found: Iterable[tuple[float, Row | None]], dim: int, rate: float) -> FeatureStream:
    """Descriptors of faces to frames of a stream.

    The first column says whether a face was found (1 or 0). Where none was, the last one's descriptors stand for half
    a second, then zeros.

    Args:
        clip: where they come from.
        found: time of each picture and the ``[dim - 1]`` descriptors of its face; None without one. Read once.
        dim: columns of the result.
        rate: pictures a second.
    """
    if not clip.has_video:
        return no_frames(dim, "no moving pictures")
    times: list[float] = []
    faces = 0

    def rows() -> Iterator[Row]:
        nonlocal faces
        last, seen = np.zeros(dim - 1, np.float32), -np.inf
        for time, row in found:
            if row is not None:
                last, seen, faces = row, time, faces + 1
            held = last if time - seen <= HOLD else np.zeros_like(last)
            times.append(time)
            yield np.concatenate([np.array([row is not None], np.float32), held])

    # Hours of small arrays in a list would take four times as much.
    values = np.asarray(np.fromiter(rows(), np.dtype((np.float32, dim))), np.float32)
    if not times:
        return no_frames(dim, "no picture in the segment")
    if not faces:
        return no_frames(dim, f"no face in any of {len(times)} pictures")
    lost = len(times) - faces
    notes = (f"no face in {lost} of {len(times)} pictures",) if lost else ()
    return FeatureStream(values, np.asarray(times), rate, notes=notes)

"""Pictures turned upright, as the container's display matrix asks."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# A point (p, q) of the coded picture is shown at (a p + c q, b p + d q), y downwards: ISO/IEC 14496-12, 8.3.2.
Matrix = tuple[int, int, int, int]  # a, b, c, d
_STAY: Matrix = (1, 0, 0, 1)


def display_matrix(frame: VideoFrame) -> Matrix:
    """Signs of a, b, c, d, rounded to quarter turns and mirrors; the identity where the frame has no matrix."""
    # Its iterator yields values and not keys, so that the methods of a mapping fail.
    held: Any = frame.side_data
    for data in (held[index] for index in range(len(held))):
        if data.type.name == "DISPLAYMATRIX" and data.buffer_size >= 36:
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
            if abs(b) > abs(a):
                return (0, 1 if b > 0 else -1, 1 if c > 0 else -1, 0)
            return (1 if a >= 0 else -1, 0, 0, 1 if d >= 0 else -1)
    return _STAY


def upright_rotation(frame: VideoFrame) -> int:
    """Degrees clockwise by which the coded picture is turned: 0, 90, 180 or 270."""
    a, b, _, _ = display_matrix(frame)
    return round(math.degrees(math.atan2(b, a))) % 360


def turn(image: npt.NDArray[np.uint8], matrix: Matrix) -> npt.NDArray[np.uint8]:
    """The picture ``[H, W, 3]`` as it is to be shown, ``[H, W, 3]`` or ``[W, H, 3]``."""
    a, b, c, d = matrix
    if b:
        image = image.transpose(1, 0, 2)
    across, down = (c, b) if b else (a, d)
    return np.ascontiguousarray(image[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])

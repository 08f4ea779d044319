"""A long video as pieces of equal length."""

from __future__ import annotations

import math

MOST = 100_000
_ROUNDING = 1e-6  # seconds: a piece that ends this little after the video ends with it


def windows(duration: float, window: float, hop: float | None = None) -> list[tuple[float, float]]:
    """Start and end of each piece, in seconds; all are ``window`` long but of a video that is shorter.

    The last piece ends with the video: it overlaps the one before where the length is no multiple of ``hop``.

    Args:
        duration: seconds of the video.
        window: seconds of each piece, like the clips of training.
        hop: seconds from one start to the next; None for ``window``, one piece after the other.

    Raises:
        ValueError: a ``window`` or ``hop`` that is not positive, or makes more than 100,000 pieces.

    >>> windows(10.0, 4.0)
    [(0.0, 4.0), (4.0, 8.0), (6.0, 10.0)]
    >>> windows(3.0, 4.0)
    [(0.0, 3.0)]
    """
    hop = window if hop is None else hop
    for name, value in (("window", window), ("hop", hop)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"Parameter `{name}` should be seconds above 0. Found `{name} = {value:g}`.")
    if duration <= window + _ROUNDING:
        return [(0.0, duration)]
    if (duration - window) / hop > MOST:
        raise ValueError(f"Parameter `hop` should make at most {MOST} pieces. Found `hop = {hop:g}`: take more.")
    count = math.floor((duration - window) / hop + _ROUNDING) + 1
    pieces = [(i * hop, i * hop + window) for i in range(count)]
    if pieces[-1][1] < duration - _ROUNDING:
        pieces.append((duration - window, duration))
    return pieces

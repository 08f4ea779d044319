"""One face followed through pictures, by the cascade of Viola and Jones that OpenCV's wheel carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

LOST = 12  # pictures without the face after which any other is taken
_SMALLEST = 0.1  # of a picture's shorter side
_PATCH = 64  # pixels of what is compared between two pictures
_LOOK = 0.12  # seconds between two looks of the detector at a face that can be followed without it
_PULL = 0.15  # how far the box is drawn, a picture, to where the detector sees it: its boxes tremble by some pixels
_FURTHEST = 0.2  # of the box's side: a shift between two pictures that can be measured
_ALIKE = 0.2  # least response of the phase correlation, 1 for pictures that differ by their shift alone


@dataclass(frozen=True, slots=True)
class Box:
    """A square around a face.

    Attributes:
        x, y: its middle, in pixels.
        size: its side, in pixels.
    """

    x: float
    y: float
    size: float


class FaceTracker:
    """Finds the largest face, then follows it: the detector finds it, the pictures themselves tell how it moves.

    The detector looks again every few pictures, and whenever a picture does not resemble the last one's face.

    Source: Viola and Jones, Rapid object detection using a boosted cascade of simple features, CVPR 2001, as
    implemented and trained in OpenCV (``haarcascade_frontalface_alt2``): upright frontal faces.

    Args:
        rate: pictures a second.
    """

    def __init__(self, rate: float = 25.0) -> None:
        from cv2 import CascadeClassifier
        from cv2.data import haarcascades

        self._cascade: Any = CascadeClassifier(haarcascades + "haarcascade_frontalface_alt2.xml")
        self._every = max(1, round(_LOOK * rate))
        self._box: Box | None = None
        self._seen: Box | None = None  # by the detector, and moved since then as the pictures have
        self._grey: Grey | None = None  # the last picture with the face
        self._missed, self._unseen = 0, 0

    def follow(self, grey: Grey) -> Box | None:
        """The face in the next picture ``[H, W]``, or None."""
        last, shift = self._box, None
        if last is not None and self._grey is not None and self._missed == 0:
            shift = _shift(last, self._grey, grey)
        if shift is not None and self._seen is not None and self._unseen + 1 < self._every:
            self._unseen += 1
            seen: Box | None = _moved(self._seen, shift)
        else:
            self._unseen = 0
            seen = self._detected(grey, last)
        if seen is None:
            self._missed += 1
            if self._missed > LOST:
                self._box = None
            return None
        box = seen if last is None or shift is None else _drawn(_moved(last, shift), seen)
        self._box, self._seen, self._grey, self._missed = box, seen, grey, 0
        return box

    def _detected(self, grey: Grey, last: Box | None) -> Box | None:
        near = None if last is None else self._near(grey, last)
        return self._anywhere(grey, last) if near is None else near

    def _near(self, grey: Grey, last: Box) -> Box | None:
        """The face around where it was, about as large."""
        left, top = (max(0, round(middle - last.size)) for middle in (last.x, last.y))
        part = grey[top : round(last.y + last.size), left : round(last.x + last.size)]
        boxes = self._detect(part, last.size * 0.75, last.size * 1.35)
        boxes = [Box(box.x + left, box.y + top, box.size) for box in boxes]
        return min(boxes, key=lambda box: _distance(box, last), default=None)

    def _anywhere(self, grey: Grey, last: Box | None) -> Box | None:
        boxes = self._detect(grey, _SMALLEST * min(grey.shape), min(grey.shape))
        if last is None:
            return max(boxes, key=lambda box: box.size, default=None)
        near = [box for box in boxes if _distance(box, last) < last.size]
        return min(near, key=lambda box: _distance(box, last), default=None)

    def _detect(self, grey: Grey, smallest: float, largest: float) -> list[Box]:
        smallest, largest = max(24, round(smallest)), round(largest)  # the cascade's own window
        if min(grey.shape) < smallest or largest < smallest:
            return []
        found = self._cascade.detectMultiScale(
            grey, scaleFactor=1.1, minNeighbors=4, minSize=(smallest, smallest), maxSize=(largest, largest)
        )
        return [
            Box(x + size / 2, y + size / 2, float(size)) for x, y, size, _ in np.asarray(found, float).reshape(-1, 4)
        ]


def _shift(box: Box, before: Grey, now: Grey) -> tuple[float, float] | None:
    """By how many pixels the content of a box has moved; None where the two pictures don't tell."""
    import cv2

    window = cv2.createHanningWindow((_PATCH, _PATCH), cv2.CV_32F)
    (x, y), response = cv2.phaseCorrelate(cut(before, box, _PATCH), cut(now, box, _PATCH), window)
    if response < _ALIKE or max(abs(x), abs(y)) > _FURTHEST * _PATCH:
        return None
    return x * box.size / _PATCH, y * box.size / _PATCH


def _moved(box: Box, shift: tuple[float, float]) -> Box:
    return Box(box.x + shift[0], box.y + shift[1], box.size)


def _drawn(box: Box, seen: Box) -> Box:
    pairs = ((box.x, seen.x), (box.y, seen.y), (box.size, seen.size))
    return Box(*(old + _PULL * (new - old) for old, new in pairs))


def cut(grey: Grey, box: Box, side: int) -> npt.NDArray[np.float32]:
    """``[side, side]`` float32 of what is in a box, exact to a fraction of a pixel.

    What lies outside of the picture repeats its edge.
    """
    import cv2

    pixels = max(1, round(box.size))
    exact = cv2.getRectSubPix(grey, (pixels, pixels), (box.x - 0.5, box.y - 0.5), patchType=cv2.CV_32F)
    return np.asarray(cv2.resize(exact, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _distance(one: Box, other: Box) -> float:
    return abs(one.x - other.x) + abs(one.y - other.y) + abs(one.size - other.size)

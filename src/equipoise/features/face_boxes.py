"""Faces without a model of landmarks: where the face is, how it moves, and what it looks like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from equipoise.features.face_stream import PRESENCE, Row, face_stream
from equipoise.features.face_tracking import Box, FaceTracker, cut
from equipoise.features.stream import FeatureStream

if TYPE_CHECKING:
    from equipoise.features.clip import Clip

LONGEST_SIDE = 320  # pixels of the pictures that are searched
CROP = 32  # pixels of the face that is described
_ORDER = 5  # of the cosines: u + v up to it, but for the mean
_MOUTH = (slice(20, 32), slice(8, 24))  # of the crop: where the box's face has its mouth
_WAVES = tuple((u, v) for u in range(_ORDER + 1) for v in range(_ORDER + 1 - u) if u + v)
_BOX = ("x", "y", "size", "x_speed", "y_speed", "growth", "brightness", "contrast", "motion_upper", "motion_lower")

_FLAT = 1e-3  # standard deviation of luma below which there is nothing to see

Crop = npt.NDArray[np.float32]


class FaceBoxes:
    """The largest upright frontal face, followed and described in 51 numbers a picture.

    - ``presence``: whether the face was found.
    - ``x``, ``y``, ``size``: middle and side of its box, as fractions of the picture's width, height and longer side.
    - ``x_speed``, ``y_speed``, ``growth``: their change, in sides of the box a second.
    - ``brightness``, ``contrast``: mean and standard deviation of its luma, of 1.
    - ``motion_upper``, ``motion_lower``: mean absolute change of its upper and lower half since the picture before,
      after the box has followed the head, in standard deviations of its luma.
    - ``face_uv``, ``mouth_uv``: two-dimensional discrete cosine transform of the box, ``[32, 32]``, and of its part
      around the mouth, both standardised; u counts waves downwards, v to the right, u + v at most 5. Squares of all
      coefficients would sum to 1.

    Turned, covered and lying faces are often lost; `FaceMesh` sees more. The features of pictures in between two faces
    are described in `equipoise.features.face_stream.face_stream`.

    Args:
        rate: pictures a second.

    Raises:
        ValueError: a rate that is not in (0, 240].
        ModuleNotFoundError: the extra ``extract`` is not installed.
    """

    modality = "vision"
    columns = (
        PRESENCE,
        *_BOX,
        *(f"{part}_{u}{v}" for part in ("face", "mouth") for u, v in _WAVES),
    )

    def __init__(self, *, rate: float = 25.0) -> None:
        if not 0 < rate <= 240:
            raise ValueError(f"Parameter `rate` should be above 0 and at most 240. Found `rate = {rate}`.")
        try:
            import cv2
        except ModuleNotFoundError:
            raise ModuleNotFoundError('OpenCV is not installed: pip install "equipoise[extract]"') from None
        self._rate, self._version = float(rate), str(cv2.__version__)

    def settings(self) -> dict[str, Any]:
        """See :class:`equipoise.features.stream.Extractor`."""
        return {"name": "face-boxes", "arguments": {"rate": self._rate}, "version": 2, "opencv": self._version}

    def extract(self, clip: Clip) -> FeatureStream:
        """See :class:`equipoise.features.stream.Extractor`."""
        return face_stream(clip, self._rows(clip), len(self.columns), self._rate)

    def _rows(self, clip: Clip) -> Iterator[tuple[float, Row | None]]:
        import cv2

        tracker = FaceTracker(self._rate)
        before: tuple[Box, Crop] | None = None
        threads = cv2.getNumThreads()
        for picture in clip.pictures(self._rate, longest_side=LONGEST_SIDE):
            grey = np.asarray(cv2.cvtColor(picture.image, cv2.COLOR_RGB2GRAY), np.uint8)
            cv2.setNumThreads(1)  # several find the same boxes in any order, and the order changes the result
            box = tracker.follow(grey)
            cv2.setNumThreads(threads)
            if box is None:
                before = None
                yield picture.time, None
                continue
            crop = cut(grey, box, CROP) / np.float32(255)
            yield picture.time, self._describe(grey.shape, box, crop, before)
            before = box, crop

    def _describe(self, shape: tuple[int, ...], box: Box, crop: Crop, before: tuple[Box, Crop] | None) -> Row:
        height, width = shape
        old, old_crop = before or (box, crop)
        speeds = [self._rate * change / box.size for change in (box.x - old.x, box.y - old.y, box.size - old.size)]
        change = (crop - old_crop) / max(float(crop.std() + old_crop.std()) / 2, _FLAT)
        motion = np.abs(change - np.median(change))  # without a flicker of the light
        place = [box.x / width, box.y / height, box.size / max(width, height)]
        light = [crop.mean(), crop.std(), motion[: CROP // 2].mean(), motion[CROP // 2 :].mean()]
        row: list[float] = [*place, *speeds, *light, *cosines(crop), *cosines(crop[_MOUTH])]
        return np.array(row, dtype=np.float32)


def cosines(crop: Crop) -> Row:
    """``[20]`` low-frequency coefficients of the orthonormal DCT-II of a standardised crop, over its root of pixels."""
    import cv2

    waves = cv2.dct(_standardised(np.ascontiguousarray(crop))) / np.sqrt(crop.size)
    return np.array([waves[u, v] for u, v in _WAVES], np.float32)


def _standardised(crop: Crop) -> Crop:
    return np.asarray((crop - crop.mean()) / max(float(crop.std()), _FLAT), np.float32)

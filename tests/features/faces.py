"""Faces drawn by hand: enough for a detector, with a mouth that opens."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def blank(*, width: int = 320, height: int = 240) -> Image:
    """``[H, W, 3]``: the background of `face`."""
    return np.full((height, width, 3), (90, 120, 90), np.uint8)


def face(
    x: float = 160, y: float = 120, *, size: float = 60, mouth: float = 0.08, width: int = 320, height: int = 240
) -> Image:
    """``[H, W, 3]``: a face with its middle at (x, y), ``size`` from there to the chin, its mouth open by a part."""
    image = blank(width=width, height=height)
    _oval(image, x, y, 0.75 * size, size, (225, 180, 150))
    _oval(image, x, y - 0.75 * size, 0.75 * size, 0.35 * size, (60, 40, 30), half=True)
    for side in (-0.32 * size, 0.32 * size):
        _oval(image, x + side, y - 0.18 * size, 0.2 * size, 0.1 * size, (60, 40, 40))
        _oval(image, x + side, y - 0.36 * size, 0.24 * size, 0.05 * size, (70, 45, 35))
    _oval(image, x, y + 0.1 * size, 0.09 * size, 0.2 * size, (245, 205, 175))
    _oval(image, x, y + 0.28 * size, 0.15 * size, 0.04 * size, (150, 100, 85))
    _oval(image, x, y + 0.52 * size, 0.3 * size, mouth * size, (150, 50, 50))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5), np.uint8)


def _oval(
    image: Image, x: float, y: float, wide: float, high: float, colour: tuple[int, int, int], *, half: bool = False
) -> None:
    exact = [round(16 * value) for value in (x, y, wide, high)]  # sixteenths of a pixel
    angles = (180, 360) if half else (0, 360)
    cv2.ellipse(image, (exact[0], exact[1]), (exact[2], exact[3]), 0, *angles, colour, -1, cv2.LINE_AA, 4)

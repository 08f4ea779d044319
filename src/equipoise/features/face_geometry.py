"""Landmarks of a face to what its parts do: openings, heights and widths that neither the pose nor the size changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from equipoise.features.face_stream import Row

Points = npt.NDArray[np.float64]

POINTS = 478  # of MediaPipe's face mesh with irises; "right" is the person's own, at the left of the picture
RIGHT_EYE = (33, 160, 158, 133, 153, 144)  # outer corner, two above, inner corner, two below
LEFT_EYE = (263, 387, 385, 362, 380, 373)
RIGHT_IRIS, LEFT_IRIS = 468, 473
RIGHT_BROW = (107, 105, 70)  # inner end, arch, outer end
LEFT_BROW = (336, 334, 300)
FOREHEAD, CHIN, UNDER_NOSE = 10, 152, 2
RIGHT_NOSTRIL, LEFT_NOSTRIL = 98, 327
RIGHT_CHEEK, LEFT_CHEEK = 205, 425
RIGHT_MOUTH, LEFT_MOUTH = 61, 291
UPPER_LIP, UPPER_LIP_INNER, LOWER_LIP_INNER, LOWER_LIP = 0, 13, 14, 17

PLACE = ("x", "y", "size", "yaw", "pitch", "roll")
SHAPE = (
    "right_eye",
    "left_eye",
    "gaze_x",
    "gaze_y",
    *(f"{side}_brow_{part}" for side in ("right", "left") for part in ("inner", "arch", "outer")),
    "brow_gap",
    "right_cheek",
    "left_cheek",
    "nose_width",
    "upper_lip",
    "mouth_width",
    "mouth_open",
    "lips_height",
    "lips_forward",
    "right_mouth_corner",
    "left_mouth_corner",
    "jaw_down",
    "jaw_side",
)


def describe_face(points: Points, width: int, height: int) -> Row:
    """A face in numbers: `PLACE`, then `SHAPE`.

    - ``x``, ``y``: the middle between the outer corners of the eyes, as fractions of the picture's width and height;
      ``size``: the distance of these corners, of the picture's longer side.
    - ``yaw``, ``pitch``, ``roll`` in radians: the face turns to the right of the picture, up, and clockwise. The plane
      of eyes, forehead and chin is what turns; 0 is towards the camera.
    - ``right_eye``, ``left_eye``: aspect ratio of the eye, its height over its width (about 0.3 open, near 0 shut).
      After Soukupová and Čech, Real-time eye blink detection using facial landmarks, CVWW 2016.
    - ``gaze_x``, ``gaze_y``: iris from the middle of its eye's corners, to the right of the picture and down, in widths
      of the eye; mean of both eyes.
    - The rest in distances of the outer corners of the eyes, upward and forward positive; beside them the action
      unit of the Facial Action Coding System that moves them most: heights of the brows above
      the corners of their eye (1, 2), ``brow_gap`` (4), from the lower lid to the cheek (6), ``nose_width`` (9),
      ``upper_lip`` from the nose (10), ``mouth_width`` (20), ``mouth_open`` between the lips (25), ``lips_height``
      (24), ``lips_forward`` of the corners (18), ``mouth_corner`` above the middle of the lips (12, 15),
      ``jaw_down`` from nose to chin (26), ``jaw_side`` to the right of the picture.

    These are lengths, not codes: an action unit is judged against the same face at rest.

    Args:
        points: ``[478, 3]`` in pixels: to the right, down, and away from the camera, on one scale.
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    Returns:
        ``[29]``.
    """
    right, left = points[RIGHT_EYE[0]], points[LEFT_EYE[0]]
    middle = (right + left) / 2
    axes, unit = _axes(points), float(np.linalg.norm(left - right))
    place = [middle[0] / width, middle[1] / height, unit / max(width, height), *_angles(axes)]
    upright = (points - middle) @ axes.T / unit
    return np.array([*place, *_shape(upright)], dtype=np.float32)


def _axes(points: Points) -> Points:
    """``[3, 3]``: unit vectors to the face's left, down, and into the head."""
    across = points[LEFT_EYE[0]] - points[RIGHT_EYE[0]]
    across = across / np.linalg.norm(across)
    down = points[CHIN] - points[FOREHEAD]
    down = down - (down @ across) * across
    down = down / np.linalg.norm(down)
    return np.stack([across, down, np.cross(across, down)])


def _angles(axes: Points) -> tuple[float, float, float]:
    """Yaw and pitch of the direction in which the face looks, and the roll around it."""
    looks = -axes[2]
    yaw, pitch = np.arctan2(looks[0], -looks[2]), np.arcsin(np.clip(-looks[1], -1, 1))
    level = np.array([np.cos(yaw), 0.0, np.sin(yaw)])  # where the left eye would be without roll
    roll = np.arctan2(axes[0] @ np.cross(axes[2], level), axes[0] @ level)
    return float(yaw), float(pitch), float(roll)


def _shape(p: Points) -> list[float]:
    def apart(one: int, other: int) -> float:
        return float(np.linalg.norm(p[one] - p[other]))

    def above(one: Points, other: Points) -> float:
        return float(other[1] - one[1])

    def opened(eye: tuple[int, ...]) -> float:
        outer, high_1, high_2, inner, low_2, low_1 = eye
        return (apart(high_1, low_1) + apart(high_2, low_2)) / max(2 * apart(outer, inner), 1e-6)

    eyes = ((RIGHT_EYE, RIGHT_IRIS, RIGHT_BROW), (LEFT_EYE, LEFT_IRIS, LEFT_BROW))
    middles = [(p[eye[0]] + p[eye[3]]) / 2 for eye, _, _ in eyes]
    gazes = [
        (p[iris] - middle) / max(apart(eye[0], eye[3]), 1e-6)
        for (eye, iris, _), middle in zip(eyes, middles, strict=True)
    ]
    gaze = np.mean(gazes, axis=0)
    brows = [above(p[point], middle) for (_, _, brow), middle in zip(eyes, middles, strict=True) for point in brow]
    lips = (p[UPPER_LIP] + p[LOWER_LIP]) / 2
    corners = (p[RIGHT_MOUTH] + p[LEFT_MOUTH]) / 2
    return [
        opened(RIGHT_EYE),
        opened(LEFT_EYE),
        float(gaze[0]),
        float(gaze[1]),
        *brows,
        apart(RIGHT_BROW[0], LEFT_BROW[0]),
        apart(RIGHT_CHEEK, RIGHT_EYE[5]),
        apart(LEFT_CHEEK, LEFT_EYE[5]),
        apart(RIGHT_NOSTRIL, LEFT_NOSTRIL),
        apart(UPPER_LIP, UNDER_NOSE),
        apart(RIGHT_MOUTH, LEFT_MOUTH),
        apart(UPPER_LIP_INNER, LOWER_LIP_INNER),
        apart(UPPER_LIP, LOWER_LIP),
        float(corners[2] - lips[2]),
        above(p[RIGHT_MOUTH], lips),
        above(p[LEFT_MOUTH], lips),
        apart(UNDER_NOSE, CHIN),
        float(p[CHIN][0] - p[UNDER_NOSE][0]),
    ]

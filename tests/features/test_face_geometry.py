from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from equipoise.features import face_geometry as geometry
from equipoise.features.face_geometry import PLACE, POINTS, SHAPE, describe_face

Points = npt.NDArray[np.float64]

# A face at rest, 100 pixels from eye corner to eye corner: right, down, away; 0 in the middle of the corners.
FACE: dict[int, tuple[float, float, float]] = {
    33: (-50, 0, 0), 160: (-40, -5, 0), 158: (-30, -5, 0), 133: (-20, 0, 0), 153: (-30, 5, 0), 144: (-40, 4, 0),
    263: (50, 0, 0), 387: (40, -5, 0), 385: (30, -5, 0), 362: (20, 0, 0), 380: (30, 5, 0), 373: (40, 5, 0),
    468: (-32, 3, 0), 473: (41, 0, 0),
    107: (-15, -25, 0), 105: (-35, -30, 0), 70: (-60, -20, 0), 336: (15, -24, 0), 334: (35, -29, 0), 300: (60, -19, 0),
    10: (0, -80, 0), 152: (2, 120, 0), 2: (0, 50, -10),
    98: (-18, 50, 0), 327: (20, 50, 0), 205: (-40, 49, 0), 425: (40, 45, 0),
    61: (-27, 72, 6), 291: (25, 70, 6), 0: (0, 60, -4), 13: (0, 68, -4), 14: (0, 75, -4), 17: (0, 90, -4),
}  # fmt: skip

# By hand from the table above, in hundreds of pixels; the eye's heights are 9, 10 and 10, 10 over widths of 30. The
# chin's 2 pixels to the left of the face (x = 2) turn no axis: down is made square to the eyes.
EXPECTED = {
    "right_eye": 19 / 60, "left_eye": 20 / 60,
    "gaze_x": (3 / 30 + 6 / 30) / 2, "gaze_y": (3 / 30 + 0) / 2,
    "right_brow_inner": 0.25, "right_brow_arch": 0.30, "right_brow_outer": 0.20,
    "left_brow_inner": 0.24, "left_brow_arch": 0.29, "left_brow_outer": 0.19,
    "brow_gap": (30**2 + 1) ** 0.5 / 100,
    "right_cheek": 0.45, "left_cheek": 0.40, "nose_width": 0.38,
    "upper_lip": (10**2 + 6**2) ** 0.5 / 100,
    "mouth_width": (52**2 + 2**2) ** 0.5 / 100, "mouth_open": 0.07, "lips_height": 0.30, "lips_forward": 0.10,
    "right_mouth_corner": 0.03, "left_mouth_corner": 0.05,
    "jaw_down": (70**2 + 2**2 + 10**2) ** 0.5 / 100, "jaw_side": 0.02,
}  # fmt: skip


def resting() -> Points:
    points = np.zeros((POINTS, 3))
    for index, place in FACE.items():
        points[index] = place
    return points


def turned(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Points:
    """A rotation: first the roll, then the pitch, then the yaw, with the signs that the docstring promises."""
    cos, sin = np.cos, np.sin
    about_z = np.array([[cos(roll), -sin(roll), 0], [sin(roll), cos(roll), 0], [0, 0, 1]])  # clockwise as y is down
    about_x = np.array([[1, 0, 0], [0, cos(pitch), sin(pitch)], [0, -sin(pitch), cos(pitch)]])  # (0, 0, -1) goes up
    about_y = np.array([[cos(yaw), 0, -sin(yaw)], [0, 1, 0], [sin(yaw), 0, cos(yaw)]])  # (0, 0, -1) goes right
    return np.asarray(about_y @ about_x @ about_z)


def named(row: npt.NDArray[np.float32]) -> dict[str, float]:
    return dict(zip((*PLACE, *SHAPE), row.tolist(), strict=True))


def test_a_face_by_hand() -> None:
    found = named(describe_face(resting() + [160, 90, 7], 320, 200))
    assert {name: found[name] for name in SHAPE} == pytest.approx(EXPECTED, abs=1e-6)
    place = {"x": 0.5, "y": 0.45, "size": 100 / 320, "yaw": 0, "pitch": 0, "roll": 0}
    assert {name: found[name] for name in PLACE} == pytest.approx(place, abs=1e-6)


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0.5, 0, 0), (0, 0.4, 0), (0, 0, 0.3), (-0.7, 0.2, -0.4), (0.3, -0.6, 1.2)]
)
def test_the_pose_is_the_rotation_and_the_shape_does_not_see_it(yaw: float, pitch: float, roll: float) -> None:
    points = 2.5 * resting() @ turned(yaw, pitch, roll).T + [100, 50, -30]
    found = named(describe_face(points, 1000, 400))
    assert (found["yaw"], found["pitch"], found["roll"]) == pytest.approx((yaw, pitch, roll), abs=1e-6)
    assert {name: found[name] for name in SHAPE} == pytest.approx(EXPECTED, abs=1e-6)
    assert (found["x"], found["y"], found["size"]) == pytest.approx((0.1, 0.125, 0.25), abs=1e-6)


def test_a_mirror_swaps_the_sides() -> None:
    pairs = [
        *zip(geometry.RIGHT_EYE, geometry.LEFT_EYE, strict=True),
        *zip(geometry.RIGHT_BROW, geometry.LEFT_BROW, strict=True),
        (geometry.RIGHT_IRIS, geometry.LEFT_IRIS),
        (geometry.RIGHT_CHEEK, geometry.LEFT_CHEEK),
        (geometry.RIGHT_NOSTRIL, geometry.LEFT_NOSTRIL),
        (geometry.RIGHT_MOUTH, geometry.LEFT_MOUTH),
    ]
    points = resting() @ turned(0.2, 0.1, 0.3).T + [60, 50, 0]
    mirrored = points * [-1, 1, 1] + [200, 0, 0]
    for right, left in pairs:
        mirrored[[right, left]] = mirrored[[left, right]]
    found, seen = named(describe_face(points, 200, 100)), named(describe_face(mirrored, 200, 100))
    for name, value in seen.items():
        other = name.replace("right", "*").replace("left", "right").replace("*", "left")
        if name in ("yaw", "roll", "gaze_x", "jaw_side"):
            assert value == pytest.approx(-found[name], abs=1e-6)
        elif name == "x":
            assert value == pytest.approx(1 - found["x"], abs=1e-6)
        else:
            assert value == pytest.approx(found[other], abs=1e-6)


@pytest.mark.parametrize(
    ("points", "moves", "column", "sign"),
    [
        ((107, 336), (0, -5, 0), "right_brow_inner", 1),  # brows are raised
        ((160, 158), (0, 4, 0), "right_eye", -1),  # a lid falls
        ((14, 17, 152), (0, 15, 0), "mouth_open", 1),  # the jaw drops
        ((14, 17, 152), (0, 15, 0), "jaw_down", 1),
        ((61, 291), (0, -6, 0), "right_mouth_corner", 1),  # a smile
        ((0, 13, 14, 17), (0, 0, -6), "lips_forward", 1),  # a kiss
        ((468, 473), (-4, 0, 0), "gaze_x", -1),
    ],
)
def test_what_a_face_does_moves_its_column(
    points: tuple[int, ...], moves: tuple[float, float, float], column: str, sign: int
) -> None:
    moved = resting()
    moved[list(points)] += moves
    before, after = named(describe_face(resting(), 100, 100)), named(describe_face(moved, 100, 100))
    assert sign * (after[column] - before[column]) > 0.02
    untouched = {"right_eye", "left_eye", "mouth_width", "nose_width"} - {column}
    assert {name: after[name] for name in untouched} == pytest.approx({name: before[name] for name in untouched})

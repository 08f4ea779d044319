from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.fft import dctn
from tests.features.clips import Image, tone, write_clip
from tests.features.faces import blank, face

from equipoise.features.clip import Clip, open_clip
from equipoise.features.extractors import from_settings, make_extractor
from equipoise.features.face_boxes import FaceBoxes, cosines
from equipoise.features.face_stream import face_stream
from equipoise.features.face_tracking import Box, FaceTracker, cut
from equipoise.features.stream import FeatureStream

COLUMNS = {name: number for number, name in enumerate(FaceBoxes.columns)}


def extract(folder: Path, pictures: Iterable[Image], rate: float = 25.0) -> FeatureStream:
    path = write_clip(folder / "clip.mp4", pictures=pictures, frame_rate=rate)
    return FaceBoxes(rate=rate).extract(open_clip(path))


def column(stream: FeatureStream, name: str) -> npt.NDArray[np.float32]:
    return np.asarray(stream.values[:, COLUMNS[name]])


# Presence, ten of the box, twenty cosines each of face and mouth.
def test_columns_are_named_once() -> None:
    assert len(FaceBoxes.columns) == len(set(FaceBoxes.columns)) == 1 + 10 + 20 + 20


def test_the_box_follows_a_face_that_moves(tmp_path: Path) -> None:
    # 2 pixels to the right and 1 down a picture, 25 pictures a second.
    stream = extract(tmp_path, (face(100 + 2 * n, 100 + n) for n in range(40)))
    assert (stream.absent, stream.notes, stream.rate) == ("", (), 25.0)
    assert stream.times == pytest.approx((np.arange(40) + 0.5) / 25)
    assert (column(stream, "presence") == 1).all()
    x, y = column(stream, "x") * 320, column(stream, "y") * 240
    true_x, true_y = 100 + 2 * np.arange(40), 100 + np.arange(40)
    # The box's middle has its own place on the face.
    assert x[10:] == pytest.approx(true_x[10:] - 3, abs=3)
    assert np.ptp((y - true_y)[10:]) < 5
    size = column(stream, "size") * 320
    assert 90 < size.mean() < 150
    assert column(stream, "x_speed")[10:].mean() == pytest.approx(50 / size.mean(), rel=0.15)
    assert column(stream, "y_speed")[10:].mean() == pytest.approx(25 / size.mean(), rel=0.2)
    assert abs(column(stream, "growth")[10:].mean()) < 0.05


def test_a_face_that_comes_nearer_grows(tmp_path: Path) -> None:
    stream = extract(tmp_path, (face(size=40 + n) for n in range(30)))
    size = column(stream, "size")[5:] * 320
    # 69 / 45, but the detector's boxes grow in steps of a tenth and the size follows with a delay.
    assert 1.3 < size[-1] / size[0] < 1.7
    assert (column(stream, "growth")[5:] > -0.1).all()
    assert column(stream, "growth")[5:].mean() > 0.2


def test_a_mouth_that_opens_moves_the_lower_half_alone(tmp_path: Path) -> None:
    stream = extract(tmp_path, (face(mouth=0.02 + 0.16 * (n // 4 % 2)) for n in range(24)))
    changes = np.arange(24) % 4 == 0
    changes[0] = False
    lower, upper = column(stream, "motion_lower"), column(stream, "motion_upper")
    assert lower[changes].min() > 3 * lower[~changes].max()
    assert lower[changes].min() > 3 * upper[changes].max()
    mouth = stream.values[:, COLUMNS["mouth_01"] :]
    closed, opened = ([mouth[n + 2 : n + 4].mean(0) for n in starts] for starts in ((0, 8, 16), (4, 12, 20)))
    tremble = np.mean([np.linalg.norm(one - other) for one, other in combinations(closed, 2)])
    assert np.mean([np.linalg.norm(one - other) for one, other in product(opened, closed)]) > 3 * tremble


def test_light_changes_brightness_and_contrast_but_no_shape(tmp_path: Path) -> None:
    pictures = [face() for _ in range(8)]
    dim = [np.asarray(picture * 0.5 + 20, np.uint8) for picture in pictures]
    (tmp_path / "dim").mkdir()
    bright, dark = extract(tmp_path, pictures), extract(tmp_path / "dim", dim)
    assert column(dark, "brightness") == pytest.approx(column(bright, "brightness") / 2 + 20 / 255, abs=0.02)
    assert column(dark, "contrast") == pytest.approx(column(bright, "contrast") / 2, rel=0.1)
    shape = slice(COLUMNS["face_01"], COLUMNS["mouth_01"])
    assert np.corrcoef(dark.values[:, shape].mean(0), bright.values[:, shape].mean(0))[0, 1] > 0.95


def test_faces_that_go_are_held_for_half_a_second_then_zero(tmp_path: Path) -> None:
    stream = extract(tmp_path, [*[face()] * 10, *[blank()] * 20, *[face()] * 5])
    presence = column(stream, "presence")
    assert presence.tolist() == [1] * 10 + [0] * 20 + [1] * 5
    # Half a second is 12.5 pictures: the twelfth is 0.48 s away.
    assert (stream.values[10:22, 1:] == stream.values[9, 1:]).all()
    assert (stream.values[22:30, 1:] == 0).all()
    assert stream.notes == ("no face in 20 of 35 pictures",)
    assert column(stream, "x_speed")[30] == column(stream, "motion_lower")[30] == 0  # no picture to compare with


def test_what_has_no_face_says_why(tmp_path: Path) -> None:
    assert extract(tmp_path, [blank()] * 6).absent == "no face in any of 6 pictures"
    sound = write_clip(tmp_path / "sound.wav", audio=tone(0.5), audio_codec="pcm_s16le")
    stream = FaceBoxes().extract(open_clip(sound))
    assert (stream.absent, stream.values.shape) == ("no moving pictures", (0, 51))


def test_rows_of_a_stream_by_hand() -> None:
    clip = Clip(Path("x"), 0, 9, {"video": {}})
    a, b = np.array([1, 2], np.float32), np.array([3, 4], np.float32)
    stream = face_stream(clip, [(0.0, None), (0.25, a), (0.75, None), (0.8, None), (1.0, b), (1.1, None)], 3, 0.0)
    assert stream.values.tolist() == [[0, 0, 0], [1, 1, 2], [0, 1, 2], [0, 0, 0], [1, 3, 4], [0, 3, 4]]
    assert face_stream(clip, [], 3, 25.0).absent == "no picture in the segment"


def test_the_larger_face_is_taken_and_then_followed() -> None:
    def grey(left: float, right: float) -> npt.NDArray[np.uint8]:
        sides = [face(100, 120, size=size, width=200) for size in (left, right)]
        return np.asarray(np.concatenate(sides, axis=1).mean(axis=2), np.uint8)

    tracker = FaceTracker()
    first = tracker.follow(grey(60, 40))
    assert first is not None
    assert first.x == pytest.approx(100, abs=6)
    for step in range(1, 21):
        box = tracker.follow(grey(60 - step, 40 + step))
        assert box is not None
        assert box.x == pytest.approx(100, abs=6)


def test_the_detector_looks_at_every_third_picture_of_a_face_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, looks = FaceTracker(rate=25.0), 0
    looked = tracker._detected

    def count(grey: Any, last: Box | None) -> Box | None:
        nonlocal looks
        looks += 1
        return looked(grey, last)

    monkeypatch.setattr(tracker, "_detected", count)
    pictures = [*(face(100 + 2 * n) for n in range(7)), blank(), blank()]
    found = []
    for picture in pictures:
        tracker.follow(np.asarray(picture.mean(axis=2), np.uint8))
        found.append(looks)
    # A picture that does not resemble the last is looked at at once.
    assert found == [1, 1, 1, 2, 2, 2, 3, 4, 5]


def test_another_face_is_taken_only_after_the_first_is_lost() -> None:
    def grey(x: float) -> npt.NDArray[np.uint8]:
        return np.asarray(face(x, width=400).mean(axis=2), np.uint8)

    tracker = FaceTracker()
    assert tracker.follow(grey(80)) is not None
    found = [tracker.follow(grey(300)) is not None for _ in range(15)]
    assert found == [False] * 13 + [True] * 2


def test_cosines_are_those_of_scipy_on_a_standardised_crop() -> None:
    crop = np.random.default_rng(0).uniform(0.2, 0.9, (32, 32)).astype(np.float32)
    standard = (crop - crop.mean()) / crop.std()
    waves = dctn(standard, norm="ortho") / 32
    assert (waves**2).sum() == pytest.approx(1, abs=1e-5)
    expected = [waves[u, v] for u in range(6) for v in range(6 - u) if u + v]
    assert cosines(crop) == pytest.approx(expected, abs=1e-5)
    assert cosines(0.3 * crop + 0.1) == pytest.approx(expected, abs=1e-4)
    assert cosines(np.full((12, 16), 0.4, np.float32)) == pytest.approx(np.zeros(20), abs=1e-3)


def test_a_crop_has_the_middle_of_its_box_in_its_middle() -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    for x in (60.0, 60.5, 71.25):
        crop = cut(ramp, Box(x, 50, 64), 32)
        # Pixel k covers [k, k + 1), so the ramp is x - ½ at x.
        assert crop.mean() == pytest.approx(x - 0.5, abs=1e-3)
        assert (crop[:, 31] - crop[:, 0]).mean() == pytest.approx(62, abs=1e-3)
    outside = cut(ramp, Box(0, 0, 64), 32)
    assert (outside[:, :16] == 0).all()


def test_settings_make_the_extractor_again() -> None:
    settings = make_extractor("face-boxes", rate=10).settings()
    assert from_settings(settings).settings() == settings
    older: dict[str, Any] = {**settings, "opencv": "4.0.0"}
    with pytest.raises(ValueError, match=r"made with `opencv = '4.0.0'` of face-boxes"):
        from_settings(older)
    with pytest.raises(ValueError, match="Parameter `rate` should be above 0"):
        FaceBoxes(rate=0)


def test_a_real_face_is_found_in_every_picture(shared_data: Path) -> None:
    stream = FaceBoxes().extract(open_clip(shared_data / "clips" / "lbax4n.mpg"))
    assert stream.values.shape == (75, 51)
    assert (column(stream, "presence") == 1).all()
    # Seen by eye: the middle of the face at about (192, 158) of 360 x 288 pixels.
    assert column(stream, "x") * 360 == pytest.approx(192, abs=10)
    assert column(stream, "y") * 288 == pytest.approx(158, abs=10)
    # The speaker says a sentence from 0.8 to 2.2 s and keeps his mouth shut before and after.
    quiet = column(stream, "motion_lower")[np.r_[1:12, 62:75]].mean()
    assert column(stream, "motion_lower")[22:55].mean() > 1.3 * quiet

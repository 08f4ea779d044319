from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.features.clips import Image, tone, write_clip
from tests.features.faces import blank

from equipoise.features.clip import open_clip
from equipoise.features.extractors import from_settings, make_extractor
from equipoise.features.face_mesh import FaceMesh, blendshape_names
from equipoise.features.stream import FeatureStream

# MediaPipe pins numpy below 2, so it has an environment of its own: `make faces` makes it and runs this file.
mediapipe = pytest.importorskip("mediapipe", reason='the extra "faces" is not installed: `make faces` runs this')
COLUMNS = {name: number for number, name in enumerate(FaceMesh().columns)}


def pictures(shared_data: Path, name: str, change: Callable[[Image], Any]) -> Iterator[Image]:
    for picture in itertools.islice(open_clip(shared_data / "clips" / f"{name}.mpg").pictures(25), 30):
        yield np.ascontiguousarray(change(picture.image), np.uint8)


def means(path: Path) -> dict[str, float]:
    stream = FaceMesh().extract(open_clip(path))
    assert stream.absent == ""
    return dict(zip(COLUMNS, stream.values[5:].mean(axis=0).tolist(), strict=True))


@pytest.fixture(scope="module")
def speaking(request: pytest.FixtureRequest) -> FeatureStream:
    shared: Path = request.getfixturevalue("shared_data")
    return FaceMesh().extract(open_clip(shared / "clips" / "lbax4n.mpg"))


def test_a_face_is_seen_where_it_is_in_every_picture(speaking: FeatureStream) -> None:
    assert speaking.values.shape == (75, 30)
    mean = dict(zip(COLUMNS, speaking.values.mean(axis=0), strict=True))
    assert mean["presence"] == 1
    # Seen by eye: the corners of the eyes at about (151, 144) and (230, 142) of 360 x 288 pixels, the head upright.
    assert (mean["x"] * 360, mean["y"] * 288) == pytest.approx((190.5, 143), abs=5)
    assert mean["size"] * 360 == pytest.approx(79, abs=5)
    assert max(abs(mean[angle]) for angle in ("yaw", "pitch", "roll")) < 0.2
    assert all(0.15 < mean[eye] < 0.4 for eye in ("right_eye", "left_eye"))


def test_the_mouth_moves_while_the_sentence_is_spoken(speaking: FeatureStream) -> None:
    # "lay blue at x four now", from 0.7 to 2.1 s: the lips close for the b. Before, they are apart but still.
    opened = speaking.values[:, COLUMNS["mouth_open"]]
    said = (speaking.times > 0.7) & (speaking.times < 2.1)
    assert opened[said].std() > 5 * opened[speaking.times < 0.4].std()
    assert opened[said].min() < 0.05 < 0.2 < opened[said].max()


def test_a_mirror_swaps_the_sides_and_a_tilt_is_a_roll(shared_data: Path, tmp_path: Path) -> None:
    tilt = cv2.getRotationMatrix2D((190, 155), -15, 1.0)  # negative is clockwise
    as_is = means(write_clip(tmp_path / "a.mp4", pictures=pictures(shared_data, "lbax4n", lambda image: image)))
    mirrored = means(write_clip(tmp_path / "b.mp4", pictures=pictures(shared_data, "lbax4n", lambda i: i[:, ::-1])))
    tilted = means(
        write_clip(
            tmp_path / "c.mp4",
            pictures=pictures(shared_data, "lbax4n", lambda i: cv2.warpAffine(i, tilt, (360, 288), borderMode=1)),
        )
    )
    assert mirrored["yaw"] == pytest.approx(-as_is["yaw"], abs=0.05)
    assert mirrored["roll"] == pytest.approx(-as_is["roll"], abs=0.03)
    assert mirrored["x"] == pytest.approx(1 - as_is["x"], abs=0.01)
    assert mirrored["left_brow_arch"] == pytest.approx(as_is["right_brow_arch"], abs=0.03)
    assert tilted["roll"] - as_is["roll"] == pytest.approx(np.deg2rad(15), abs=0.04)
    for column in ("mouth_width", "jaw_down", "brow_gap", "right_eye"):
        assert tilted[column] == pytest.approx(as_is[column], rel=0.12)


def test_the_same_clip_gives_the_same_features(speaking: FeatureStream, shared_data: Path) -> None:
    again = FaceMesh().extract(open_clip(shared_data / "clips" / "lbax4n.mpg"))
    assert np.array_equal(again.values, speaking.values)


def test_what_has_no_face_says_why(tmp_path: Path) -> None:
    empty = write_clip(tmp_path / "empty.mp4", pictures=(blank() for _ in range(5)))
    assert FaceMesh().extract(open_clip(empty)).absent == "no face in any of 5 pictures"
    sound = write_clip(tmp_path / "sound.wav", audio=tone(0.3), audio_codec="pcm_s16le")
    assert FaceMesh().extract(open_clip(sound)).absent == "no moving pictures"


def bundle(folder: Path) -> Path:
    """The wheel's own networks in the form of MediaPipe Tasks: it loads and runs, but its landmarks are no good."""
    modules = Path(mediapipe.__file__).parent / "modules"
    path = folder / "face.task"
    with zipfile.ZipFile(path, "w") as file:
        file.write(modules / "face_detection" / "face_detection_short_range.tflite", "face_detector.tflite")
        file.write(modules / "face_landmark" / "face_landmark.tflite", "face_landmarks_detector.tflite")
    return path


def test_a_model_of_tasks_is_loaded_by_its_path(shared_data: Path, tmp_path: Path) -> None:
    path = bundle(tmp_path)
    extractor = make_extractor("face-mesh", path=str(path), rate=10)
    stream = extractor.extract(open_clip(shared_data / "clips" / "lbax4n.mpg"))
    assert stream.values.shape == (30, 30)
    assert stream.values[:, 0].any()
    settings = extractor.settings()
    assert str(tmp_path) not in str(settings)
    assert from_settings(settings, [tmp_path]).settings() == settings
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("more", "x")
    with pytest.raises(FileNotFoundError, match=r"`face-mesh` needs .* Found other weights"):
        from_settings(settings, [tmp_path])


def test_models_that_are_none_are_refused(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no face landmarker at"):
        FaceMesh(path=str(tmp_path / "none.task"))
    (tmp_path / "text.task").write_text("x")
    with pytest.raises(ValueError, match=r"text\.task is no model of MediaPipe Tasks"):
        FaceMesh(path=str(tmp_path / "text.task"))
    with zipfile.ZipFile(tmp_path / "empty.task", "w") as file:
        file.writestr("x", "x")
    with pytest.raises(ValueError, match=r"empty\.task is no face landmarker that MediaPipe can load"):
        FaceMesh(path=str(tmp_path / "empty.task")).extract(open_clip(shared_data / "clips" / "lbax4n.mpg"))


def test_blendshapes_have_names() -> None:
    assert len(set(blendshape_names())) == 52
    assert "jaw_open" in blendshape_names()

"""The pictures of a clip: which one at which moment, upright, and how large."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import read_number, rotate_mp4, square, write_clip

from equipoise.features.clip import open_clip


@pytest.mark.parametrize("frame_rate", [10, Fraction(24000, 1001), Fraction(30000, 1001), 12.5, 50])
@pytest.mark.parametrize("rate", [5.0, 10.0, 25.0])
def test_pictures_come_at_one_rate_whatever_that_of_the_clip(tmp_path: Path, frame_rate: float, rate: float) -> None:
    count = int(2 * frame_rate)
    path = write_clip(tmp_path / "a.mp4", pictures=map(square, range(count)), frame_rate=frame_rate)
    pictures = list(open_clip(path).pictures(rate))
    assert len(pictures) == pytest.approx(count / float(frame_rate) * rate, abs=1)
    for number, picture in enumerate(pictures):
        assert picture.time == pytest.approx((number + 0.5) / rate)
        assert read_number(picture.image) == int((picture.time + 0.002) * float(frame_rate)) % 16


def test_a_frame_rate_that_varies_is_told_and_sampled_by_its_timestamps(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.13, 0.9, 1.0, 1.9, 1.95]  # a screen recording: a picture when something moves
    path = write_clip(tmp_path / "a.mkv", pictures=map(square, range(len(times))), times=times)
    clip = open_clip(path)
    assert clip.facts["video"]["variable"]
    pictures = list(clip.pictures(10))
    shown = [int(np.searchsorted(times, picture.time, side="right")) - 1 for picture in pictures]
    assert [read_number(picture.image) for picture in pictures] == shown
    assert shown[:12] == [0, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 4]
    assert not open_clip(write_clip(tmp_path / "b.mkv", pictures=map(square, range(50)))).facts["video"]["variable"]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_pictures_are_upright(tmp_path: Path, degrees: int) -> None:
    upright = np.full((96, 160, 3), 20, np.uint8)
    upright[:48, :80] = (220, 30, 30)  # red top left
    upright[48:, 80:] = (30, 30, 220)  # blue bottom right
    stored = np.rot90(upright, degrees // 90)  # turned against the clock; players turn it back
    path = write_clip(tmp_path / "a.mp4", pictures=[np.ascontiguousarray(stored)] * 10)
    clip = open_clip(rotate_mp4(path, degrees))
    assert clip.facts["video"]["rotation"] == degrees
    image = next(clip.pictures(5)).image
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 12


def test_large_pictures_are_made_smaller_and_small_ones_stay(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", pictures=map(square, range(10)))
    clip = open_clip(path)
    assert next(clip.pictures(5, longest_side=80)).image.shape == (60, 80, 3)
    assert next(clip.pictures(5, longest_side=500)).image.shape == (120, 160, 3)
    assert [read_number(p.image) for p in clip.pictures(25, longest_side=40)] == list(range(10))


def test_a_clip_shorter_than_the_step_between_pictures_shows_its_middle(tmp_path: Path) -> None:
    clip = open_clip(write_clip(tmp_path / "a.mp4", pictures=map(square, range(5))))
    for part, rate, time, number in ((clip, 1, 0.1, 2), (open_clip(clip.path, start=0.12, end=0.16), 5, 0.02, 3)):
        (picture,) = part.pictures(rate)
        assert picture.time == pytest.approx(time)
        assert read_number(picture.image) == number

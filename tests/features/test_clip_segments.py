"""A segment of a clip is what the whole clip has there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import noise, square, tone, voice, write_clip
from tests.features.decoded import heard, seen

from equipoise.features.clip import MediaError, open_clip


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mkv"])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_a_segment_holds_exactly_the_samples_of_the_whole(tmp_path: Path, name: str, rate: int) -> None:
    codec = "pcm_s16le" if name == "a.wav" else "flac"
    path = write_clip(tmp_path / name, audio=noise(7.0, rate), rate=rate, audio_codec=codec)
    whole = heard(open_clip(path))
    for start, end in ((0.0, 1.0), (2.37, 2.9), (5.013, None)):
        clip = open_clip(path, start=start, end=end)
        part = whole[round(start * 16000) : None if end is None else round(end * 16000)]
        np.testing.assert_array_equal(heard(clip), part)
        assert clip.duration == pytest.approx((end or 7.0) - start)


LOSSY = [
    ("a.mp4", "aac", "libx264", 44100),
    ("a.m4a", "aac", None, 16000),
    ("a.aac", "aac", None, 44100),
    ("a.mp3", "libmp3lame", None, 44100),
    ("a.opus", "libopus", None, 48000),
    ("a.mpg", "mp2", "mpeg1video", 44100),
    ("a.ts", "aac", "mpeg2video", 48000),
]


@pytest.mark.parametrize(("name", "sound", "video", "rate"), LOSSY, ids=[row[0] for row in LOSSY])
def test_a_segment_of_lossy_audio_is_that_of_the_whole_too(
    tmp_path: Path, name: str, sound: str, video: str | None, rate: int
) -> None:
    path = write_clip(
        tmp_path / name,
        audio=voice(6.0, rate),
        rate=rate,
        pictures=map(square, range(150)) if video else None,
        audio_codec=sound,
        video_codec=video or "",
    )
    whole = heard(open_clip(path))
    for start, end in ((3.5, 4.5), (5.2, 5.9)):
        part = heard(open_clip(path, start=start, end=end))
        np.testing.assert_allclose(part, whole[round(start * 16000) : round(end * 16000)], atol=2e-4)


def test_a_segment_of_webm_begins_within_a_millisecond_because_its_timestamps_have_no_finer(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.webm",
        audio=voice(6.0, 48000),
        rate=48000,
        pictures=map(square, range(150)),
        audio_codec="libopus",
        video_codec="libvpx",
    )
    whole, part = heard(open_clip(path)), heard(open_clip(path, start=3.5, end=4.5))
    away = [float(np.abs(part - whole[56000 + lag :][:16000]).max()) for lag in range(-16, 17)]
    assert min(away) < 1e-3


@pytest.mark.parametrize(("name", "video"), [("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.mpg", "mpeg1video")])
def test_a_segment_shows_the_pictures_of_the_whole(tmp_path: Path, name: str, video: str) -> None:
    path = write_clip(tmp_path / name, pictures=map(square, range(150)), video_codec=video)
    whole = seen(open_clip(path), 25)
    assert len(whole) == 150
    assert seen(open_clip(path, start=4.0, end=5.0), 25) == whole[100:125]
    times = [picture.time for picture in open_clip(path, start=4.0, end=5.0).pictures(25)]
    np.testing.assert_allclose(times, (np.arange(25) + 0.5) / 25, atol=1e-9)


@pytest.mark.parametrize(("name", "video"), [("a.mpg", "mpeg1video"), ("a.ts", "mpeg2video"), ("a.mp4", "libx264")])
def test_a_segment_far_behind_the_last_key_frame_is_found(tmp_path: Path, name: str, video: str) -> None:
    path = write_clip(tmp_path / name, pictures=map(square, range(300)), video_codec=video, key_every=250)
    for start in (5, 9):
        part = seen(open_clip(path, start=start, end=start + 0.4), 25)
        assert part == [number % 16 for number in range(start * 25, start * 25 + 10)]


def test_segments_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", audio=tone(1.0), audio_codec="pcm_s16le")
    with pytest.raises(ValueError, match=r"`start` should be non-negative. Found `start = -1`"):
        open_clip(path, start=-1)
    with pytest.raises(ValueError, match=r"`end` should be greater than `start = 0.5`. Found `end = 0.5`"):
        open_clip(path, start=0.5, end=0.5)
    with pytest.raises(MediaError, match=r"ends at 1.000 s, before its segment begins at 2.000 s"):
        open_clip(path, start=2)
    assert open_clip(path, start=0.5, end=9).end == pytest.approx(1.0)
    with pytest.raises(ValueError, match="`rate`"):
        next(open_clip(path).audio(10))
    with pytest.raises(ValueError, match="`rate`"):
        next(open_clip(path).pictures(0))


def test_a_jump_between_two_frames_of_sound_is_no_error_of_the_file(shared_data: Path) -> None:
    # In MPEG-1 a jump lands anywhere, and half of the first frame can't be decoded. Nothing of the segment is lost.
    clip = open_clip(shared_data / "clips" / "lbax4n.mpg", start=1.9, end=2.4)
    whole = heard(open_clip(clip.path))
    np.testing.assert_allclose(heard(clip), whole[round(1.9 * 16000) : round(2.4 * 16000)], atol=1e-3)
    assert list(clip.notes) == []

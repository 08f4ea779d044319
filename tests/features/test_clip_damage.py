"""Clips that are joined, cut off, damaged or hostile: used as far as they go, or refused in one line."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import noise, square, tone, voice, write_clip
from tests.features.decoded import heard, power, seen

from equipoise.features.clip import MediaError, open_clip


@pytest.mark.parametrize(("name", "sound", "video"), [("a.ts", "mp2", "mpeg2video"), ("a.mpg", "mp2", "mpeg1video")])
@pytest.mark.parametrize("delay", [0.0, 300.0])
def test_recordings_that_were_joined_run_on(tmp_path: Path, name: str, sound: str, video: str, delay: float) -> None:
    parts = []
    for number, hertz in enumerate((500.0, 1000.0)):
        parts.append(
            write_clip(
                tmp_path / f"{number}-{name}",
                audio=tone(4.0, 48000, hertz=hertz),
                rate=48000,
                pictures=map(square, range(100)),
                audio_codec=sound,
                video_codec=video,
                delay=delay * (1 - number),  # the second one's timestamps lie so far before the first one's
            ).read_bytes()
        )
    path = tmp_path / name
    path.write_bytes(b"".join(parts))
    clip = open_clip(path)
    assert clip.facts["jumps"] > 0
    assert clip.duration == pytest.approx(8.0, abs=0.3)
    sound_heard = heard(clip)
    assert len(sound_heard) / 16000 == pytest.approx(8.0, abs=0.3)
    assert power(sound_heard[16000:48000], 500) == pytest.approx(0.5, rel=0.05)
    assert power(sound_heard[5 * 16000 : 7 * 16000], 1000) == pytest.approx(0.5, rel=0.05)
    pictures = seen(clip, 25)
    assert len(pictures) == pytest.approx(200, abs=4)
    assert pictures[150:170] == [(pictures[150] + step) % 16 for step in range(20)]
    assert any("timestamps jump" in note for note in clip.notes)
    part = heard(open_clip(path, start=5.0, end=6.0))
    np.testing.assert_allclose(part, sound_heard[80000:96000], atol=1e-6)


FUZZED = [
    ("a.mp4", "aac", "libx264"),
    ("a.mkv", "flac", "mpeg4"),
    ("a.webm", "libopus", "libvpx"),
    ("a.avi", "mp2", "mpeg4"),
    ("a.mpg", "mp2", "mpeg1video"),
    ("a.ts", "mp2", "mpeg2video"),
    ("a.flac", "flac", None),
    ("a.mp3", "libmp3lame", None),
]


@pytest.mark.parametrize(("name", "sound", "video"), FUZZED, ids=[row[0] for row in FUZZED])
def test_damaged_files_are_used_or_refused(tmp_path: Path, name: str, sound: str, video: str | None) -> None:
    path = write_clip(
        tmp_path / name,
        audio=voice(1.0, 48000),
        rate=48000,
        pictures=map(square, range(25)) if video else None,
        audio_codec=sound,
        video_codec=video or "",
    )
    whole = path.read_bytes()
    used = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        data = bytearray(whole)
        at = int(random.integers(len(data)))
        if seed % 3 == 0:
            del data[at:]
        elif seed % 3 == 1:
            data[at : at + 300] = random.bytes(min(300, len(data) - at))
        else:
            for place in random.integers(len(data), size=10):
                data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            clip = open_clip(path)
            samples = heard(clip)
            pictures = [picture.time for picture in clip.pictures(5)]
        except MediaError:
            continue
        used += 1
        assert np.isfinite(samples).all()
        assert len(samples) <= round(clip.duration * 16000)
        assert all(0 <= time < clip.duration for time in pictures)
        assert all(name.startswith(("audio:", "video:")) for name in clip.notes)
    assert used > 3


@pytest.mark.parametrize(("name", "video"), [("a.mkv", "mpeg4"), ("a.ts", "mpeg2video"), ("a.avi", "mpeg4")])
def test_a_truncated_clip_is_used_as_far_as_it_goes(tmp_path: Path, name: str, video: str) -> None:
    path = write_clip(
        tmp_path / name, audio=tone(8.0), pictures=map(square, range(200)), audio_codec="mp2", video_codec=video
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = open_clip(path)
    sound, pictures = heard(clip), seen(clip, 25)
    assert 2 < len(sound) / 16000 < 6
    assert 50 < len(pictures) < 150
    assert pictures[10:40] == [number % 16 for number in range(pictures[10], pictures[10] + 30)]
    assert clip.duration < 6 or any("ends at" in note for note in clip.notes)


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", audio=tone(2.0), pictures=map(square, range(50)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match="can't be opened"):
        open_clip(path)


def test_damage_in_the_middle_is_noted_and_the_rest_used(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", audio=noise(8.0), pictures=map(square, range(200)), video_codec="libx264")
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    middle = begin + (len(data) - begin) // 3
    data[middle : middle + 3000] = os.urandom(3000)
    path.write_bytes(data)
    clip = open_clip(path)
    assert len(heard(clip)) == pytest.approx(8 * 16000, abs=1600)
    assert len(seen(clip, 25)) >= 190
    assert any("errors of decoding" in note for note in clip.notes)


def test_a_header_that_claims_enormous_pictures_fills_no_memory(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", pictures=map(square, range(5)), video_codec="rawvideo")
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 8 + 4  # BITMAPINFOHEADER: width and height
    data[at : at + 8] = struct.pack("<ii", 60000, 60000)
    path.write_bytes(data)
    with pytest.raises(MediaError):
        list(open_clip(path).pictures(5))


def test_the_decoder_itself_refuses_enormous_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", pictures=map(square, range(5)))
    monkeypatch.setattr("equipoise.features.container.MAX_PIXELS", 1000)
    with pytest.raises(MediaError, match="nothing can be decoded"):
        list(open_clip(path).pictures(5))

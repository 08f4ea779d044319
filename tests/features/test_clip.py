"""A clip as a whole: every container, what its header says, and what is no clip."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import square, tone, write_clip
from tests.features.decoded import heard, power, seen

from equipoise.features.clip import MediaError, decoder, open_clip

# name, audio codec, video codec, sample rate
FORMATS = [
    ("a.mp4", "aac", "libx264", 44100),
    ("a.mov", "aac", "mpeg4", 48000),
    ("a.mkv", "flac", "mpeg4", 44100),
    ("a.webm", "libopus", "libvpx", 48000),
    ("a.avi", "pcm_s16le", "mpeg4", 22050),
    ("a.mpg", "mp2", "mpeg1video", 44100),
    ("a.ts", "mp2", "mpeg2video", 48000),
]


@pytest.mark.parametrize(("name", "sound", "video", "rate"), FORMATS, ids=[row[0] for row in FORMATS])
def test_every_container_gives_the_same_sound_at_the_same_moment_and_each_picture_once(
    tmp_path: Path, name: str, sound: str, video: str, rate: int
) -> None:
    silence = np.zeros(rate // 2, np.float32)
    audio = np.concatenate([silence, tone(1.0, rate, hertz=1000), silence])  # 0.5 s to 1.5 s
    path = write_clip(
        tmp_path / name,
        audio=audio,
        rate=rate,
        pictures=map(square, range(50)),
        audio_codec=sound,
        video_codec=video,
    )
    clip = open_clip(path)
    assert clip.duration == pytest.approx(2.0, abs=0.05)
    sound_heard = heard(clip)
    assert len(sound_heard) / 16000 == pytest.approx(2.0, abs=0.05)
    loud = np.flatnonzero(np.abs(sound_heard) > 0.25) / 16000
    assert loud[0] == pytest.approx(0.5, abs=0.02)
    assert loud[-1] == pytest.approx(1.5, abs=0.02)
    assert power(sound_heard[12000:20000], 1000) == pytest.approx(0.5, rel=0.05)
    pictures = seen(clip, 25)
    late = pictures.index(1) - 1  # AVI's writer shows the first picture twice
    assert late in ((0, 1) if name == "a.avi" else (0,))
    assert pictures[late : late + 49] == [number % 16 for number in range(49)]
    assert clip.notes == []


def test_facts_say_what_the_container_says(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "ein Stück 片 ☃.mp4", audio=tone(1.0, 44100), rate=44100, pictures=map(square, range(25))
    )
    facts = open_clip(path).facts
    assert facts["bytes"] == path.stat().st_size
    assert facts["audio"] == {"codec": "aac", "rate": 44100, "channels": 1, "layout": "mono"}
    assert (facts["video"]["codec"], facts["video"]["width"], facts["video"]["height"]) == ("mpeg4", 160, 120)
    assert facts["video"]["frame_rate"] == pytest.approx(25)
    assert set(decoder()) >= {"pyav", "libavcodec"}


def test_a_name_like_an_address_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.wav", audio=tone(0.5), audio_codec="pcm_s16le").rename(tmp_path / "http:a.wav")
    assert open_clip("http:a.wav").duration == pytest.approx(0.5)


def test_one_track_missing_is_no_error(tmp_path: Path) -> None:
    sound = open_clip(write_clip(tmp_path / "a.wav", audio=tone(0.5), audio_codec="pcm_s16le"))
    assert (sound.has_audio, sound.has_video, list(sound.pictures(5))) == (True, False, [])
    silent = open_clip(write_clip(tmp_path / "a.mp4", pictures=map(square, range(10))))
    assert (silent.has_audio, silent.has_video, list(silent.audio())) == (False, True, [])


def test_files_that_are_no_clips_are_refused_in_one_line(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", pictures=map(square, range(25)))
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no media at all\n" * 100)
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.txt").write_text(f"ffconcat version 1.0\nfile '{path.name}'\n")
    for name in ("empty.mp4", "text.mp4", "missing.mp4", "list.m3u8", "list.txt", "."):
        with pytest.raises(MediaError) as caught:
            open_clip(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(MediaError, match=r"two lines \\udcff.mp4 is not there"):
        open_clip("two\nlines \udcff.mp4")


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = []
    for seconds in (10, 60):
        path = write_clip(tmp_path / f"{seconds}.flac", audio=tone(seconds, 22050), rate=22050, audio_codec="flac")
        clip = open_clip(path)
        tracemalloc.start()
        for _ in clip.audio():
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_real_clips_of_faces(shared_data: Path) -> None:
    paths = sorted((shared_data / "clips").glob("*.mpg"))
    assert len(paths) == 5
    for path in paths:
        clip = open_clip(path)
        pictures = list(clip.pictures(25))
        assert len(pictures) == 75
        assert pictures[0].image.shape == (288, 360, 3)
        sound = heard(clip)
        assert len(sound) / 16000 == pytest.approx(2.98, abs=0.03)
        assert 0.01 < np.sqrt(np.mean(sound**2)) < 0.3
        assert clip.notes == []

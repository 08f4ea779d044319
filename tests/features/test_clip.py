from __future__ import annotations

import os
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.features.clips import noise, read_number, rotate_mp4, square, tone, voice, write_clip

from equipoise.features.audio_decoding import mono
from equipoise.features.clip import Clip, MediaError, decoder, open_clip


def heard(clip: Clip, rate: int = 16000) -> npt.NDArray[np.float32]:
    """All samples; the blocks must follow each other without a hole."""
    blocks = list(clip.audio(rate))
    ends = np.cumsum([0, *(len(block.samples) for block in blocks)]) / rate
    np.testing.assert_allclose([block.start for block in blocks], ends[:-1], atol=1e-9)
    return np.concatenate([block.samples for block in blocks]) if blocks else np.zeros(0, np.float32)


def seen(clip: Clip, rate: float) -> list[int]:
    return [read_number(picture.image) for picture in clip.pictures(rate)]


def power(sound: npt.NDArray[np.float32], hertz: float, rate: int = 16000) -> float:
    """Amplitude of one frequency."""
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(sound)) / rate)
    return float(2 * np.abs(np.mean(wave * sound)))


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


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_any_sample_rate_becomes_the_asked_one_with_amplitude_and_phase(tmp_path: Path, rate: int) -> None:
    path = write_clip(tmp_path / "a.wav", audio=tone(1.0, rate, hertz=700), rate=rate, audio_codec="pcm_s16le")
    sound = heard(open_clip(path))
    assert len(sound) == 16000
    expected = tone(1.0, 16000, hertz=700)
    np.testing.assert_allclose(sound[400:-400], expected[400:-400], atol=2e-3)


def test_what_lies_above_half_the_new_rate_is_gone(tmp_path: Path) -> None:
    both = tone(1.0, 48000, hertz=9000, level=0.4) + tone(1.0, 48000, hertz=6000, level=0.4)
    path = write_clip(tmp_path / "a.wav", audio=both, rate=48000, audio_codec="pcm_s16le")
    sound = heard(open_clip(path))[1600:-1600]
    assert power(sound, 7000) < 1e-4  # where 9000 would fold to
    assert power(sound, 6000) == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize(
    ("layout", "weights"),
    [("stereo", [1, 1]), ("5.1", [0.7071, 0.7071, 1, 0, 0.5, 0.5])],  # FL FR FC LFE BL BR
)
def test_channels_are_weighted_by_what_they_carry(tmp_path: Path, layout: str, weights: list[float]) -> None:
    hertz = 300.0 + 100 * np.arange(len(weights))
    audio = np.stack([tone(1.0, 16000, hertz=float(f), level=0.8) for f in hertz])
    path = write_clip(tmp_path / "a.wav", audio=audio, layout=layout, audio_codec="pcm_s16le")
    sound = heard(open_clip(path))
    for frequency, weight in zip(hertz, weights, strict=True):
        assert power(sound, float(frequency)) == pytest.approx(0.8 * weight / sum(weights), abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "low", "middle", "high"),
    [("u8", 0, 128, 192), ("s16", -(2**15), 0, 2**14), ("s32", -(2**31), 0, 2**30), ("flt", -1.0, 0.0, 0.5)],
)
def test_every_sample_format_has_full_scale_at_one(kind: str, low: float, middle: float, high: float) -> None:
    import av

    dtype = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32}[kind]
    frame = av.AudioFrame.from_ndarray(np.array([[low, middle, high]], dtype=dtype), format=kind, layout="mono")
    np.testing.assert_array_equal(mono(frame), [-1.0, 0.0, 0.5])


def test_samples_that_are_no_numbers_become_silence() -> None:
    import av

    values = np.array([[np.nan, np.inf, -np.inf, 0.25]], np.float32)
    np.testing.assert_array_equal(
        mono(av.AudioFrame.from_ndarray(values, format="flt", layout="mono")), [0, 0, 0, 0.25]
    )


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


def test_audio_that_starts_late_begins_with_silence(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mkv",
        audio=tone(1.0, 16000, hertz=1000),
        audio_start=0.75,
        audio_codec="flac",
        pictures=map(square, range(50)),
    )
    sound = heard(open_clip(path))
    assert not sound[:11990].any()
    assert power(sound[12100:27000], 1000) == pytest.approx(0.5, rel=0.01)
    assert len(sound) == pytest.approx(28000, abs=20)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_the_padding_of_a_codec_is_no_part_of_the_sound(tmp_path: Path, rate: int) -> None:
    path = write_clip(tmp_path / "a.mp4", audio=tone(1.03, rate), rate=rate, pictures=map(square, range(50)))
    assert len(heard(open_clip(path))) == round(1.03 * 16000)


def test_a_hole_in_the_audio_is_filled_with_silence(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("flac", rate=16000, layout="mono")
        for at in [0, 1, 3, 4]:  # the third second is missing
            samples = np.full((1, 16000), 8000, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, at * 16000, Fraction(1, 16000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    sound = heard(open_clip(path))
    assert len(sound) == pytest.approx(5 * 16000, abs=300)
    assert not sound[2 * 16000 + 300 : 3 * 16000 - 300].any()
    assert (sound[3 * 16000 + 300 : 5 * 16000 - 300] > 0.2).all()


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


def test_a_sample_rate_that_changes_on_the_way_changes_nothing_in_the_sound(tmp_path: Path) -> None:
    parts = []
    for rate in (48000, 32000):
        part = write_clip(tmp_path / f"{rate}.ts", audio=tone(2.0, rate, hertz=800), rate=rate, audio_codec="mp2")
        parts.append(part.read_bytes())
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(parts))
    sound = heard(open_clip(path))
    assert len(sound) / 16000 == pytest.approx(4.0, abs=0.15)
    for start in (0.2, 2.4):
        assert power(sound[round(start * 16000) :][:16000], 800) == pytest.approx(0.5, rel=0.02)


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

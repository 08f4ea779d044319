"""The sound of a clip: its rate, its channels, its level, and where it begins and ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import square, tone, write_clip
from tests.features.decoded import heard, power

from equipoise.features.audio_decoding import mono
from equipoise.features.clip import open_clip


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

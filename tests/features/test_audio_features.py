from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.features.clips import noise, square, tone, voice, write_clip

from equipoise.features.audio_frames import windows
from equipoise.features.clip import AudioBlock, open_clip
from equipoise.features.extractors import EXTRACTORS, from_settings, make_extractor
from equipoise.features.log_mel import LogMel
from equipoise.features.mfcc import Mfcc, with_slopes
from equipoise.features.spectra import log_mel, mel_filters

Values = npt.NDArray[np.float32]
AUDIO = [name for name, (modality, _, _) in EXTRACTORS.items() if modality == "audio"]


def wav(path: Path, sound: Values) -> Path:
    return write_clip(path, audio=sound, audio_codec="pcm_s16le")


def blocks(sound: Values, sizes: Sequence[int]) -> list[AudioBlock]:
    cuts = np.cumsum([0, *sizes])
    return [AudioBlock(a / 16000, sound[a:b]) for a, b in zip(cuts, [*cuts[1:], len(sound)], strict=True)]


def spectra_by_hand(sound: Values, bins: int, low: float, high: float) -> npt.NDArray[np.float64]:
    """Frame after frame and filter after filter, in float64."""

    def mel(hertz: float) -> float:
        return float(1127 * np.log(1 + hertz / 700))

    edges = [mel(low) + (mel(high) - mel(low)) * i / (bins + 1) for i in range(bins + 2)]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = []
    for start in range(0, len(sound) - 399, 160):
        power = np.abs(np.fft.rfft(sound[start : start + 400].astype(np.float64) * hann, 1024)) ** 2 / (hann**2).sum()
        row = []
        for i in range(bins):
            left, peak, right = edges[i : i + 3]
            total = 0.0
            for k in range(513):
                m = mel(k * 16000 / 1024)
                if left < m <= peak:
                    total += power[k] * (m - left) / (peak - left)
                elif peak < m < right:
                    total += power[k] * (right - m) / (right - peak)
            row.append(np.log(max(total, 1e-10)))
        rows.append(row)
    return np.array(rows)


def test_log_mel_is_what_its_definition_says(tmp_path: Path) -> None:
    clip = open_clip(wav(tmp_path / "a.wav", voice(0.4)[5000:6200]))
    stream = LogMel(rate=100, bins=20, low=50, high=7000).extract(clip)
    expected = spectra_by_hand(np.concatenate([block.samples for block in clip.audio()]), 20, 50, 7000)
    assert stream.values.shape == expected.shape == (6, 20)
    np.testing.assert_allclose(stream.values, expected, atol=5e-4)
    np.testing.assert_allclose(stream.times, 0.0125 + 0.01 * np.arange(6), atol=1e-9)


def test_the_power_of_white_noise_is_its_variance() -> None:
    filters = mel_filters(80, 20, 7600)
    bands = torch.cat(list(log_mel(blocks(noise(20.0, level=0.05), []), filters)))
    power = bands.exp().mean(dim=0) / filters.sum(dim=1)
    np.testing.assert_allclose(power.numpy(), 0.05**2, rtol=0.1)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_the_band_that_holds_it(hertz: float) -> None:
    bands = torch.cat(list(log_mel(blocks(tone(0.5, hertz=hertz), []), mel_filters(80, 20, 7600))))
    mel = 1127 * np.log(1 + np.array([20.0, 7600.0, hertz]) / 700)
    expected = (mel[2] - mel[0]) / (mel[1] - mel[0]) * 81 - 1
    assert abs(float(bands.mean(dim=0).argmax()) - expected) <= 1


def test_silence_has_the_value_of_the_floor() -> None:
    bands = torch.cat(list(log_mel(blocks(np.zeros(8000, np.float32), []), mel_filters(80, 20, 7600))))
    np.testing.assert_allclose(bands.numpy(), np.log(1e-10), rtol=1e-6)


def test_mfcc_are_the_cosine_transform_of_log_mel_and_its_slopes(tmp_path: Path) -> None:
    from scipy.fft import dct

    clip = open_clip(wav(tmp_path / "a.wav", voice(1.3)))
    mel = LogMel(rate=100, bins=40).extract(clip).values.astype(np.float64)
    stream = Mfcc(rate=100).extract(clip)
    assert stream.values.shape == (len(mel), 39)
    coefficients = dct(mel, type=2, norm="ortho", axis=1)[:, :13]
    np.testing.assert_allclose(stream.values[:, :13], coefficients, atol=2e-4)

    def slopes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The line of least squares through five frames."""
        padded = np.pad(values, ((2, 2), (0, 0)), mode="edge")
        return np.stack([np.polyfit(np.arange(5), padded[t : t + 5], 1)[0] for t in range(len(values))])

    np.testing.assert_allclose(stream.values[:, 13:26], slopes(coefficients), atol=2e-4)
    np.testing.assert_allclose(stream.values[:, 26:], slopes(slopes(coefficients)), atol=2e-4)
    assert (stream.values[:, 13:] != 0).any(axis=0).all()


def test_slopes_by_hand_and_however_frames_are_cut() -> None:
    values = np.array([[0.0], [1.0], [4.0], [9.0], [16.0], [25.0]], np.float32)
    # (-2 a + -1 b + 1 d + 2 e) / 10 over five frames, the first and last repeated.
    expected = [
        (-0 - 0 + 1 + 8) / 10,
        (-0 - 0 + 4 + 18) / 10,
        4.0,
        6.0,
        (-8 - 9 + 25 + 50) / 10,
        (-18 - 16 + 25 + 50) / 10,
    ]
    for sizes in ([6], [1] * 6, [3, 3], [2, 0, 4], [5, 1]):
        parts = np.split(values, np.cumsum(sizes)[:-1])
        joined = np.concatenate(list(with_slopes(parts, 1)))
        np.testing.assert_allclose(joined, np.column_stack([values[:, 0], expected]), rtol=1e-6)
    assert list(with_slopes([], 1)) == []


@pytest.mark.parametrize("sizes", [[1], [399, 1, 1], [16000] * 2, [16160], [100] * 300, [17, 30001]])
def test_how_the_audio_is_cut_changes_not_one_bit(sizes: list[int]) -> None:
    from equipoise.features.egemaps import Egemaps

    sound = voice(2.5)
    filters = mel_filters(40, 20, 7600)
    whole = torch.cat(list(log_mel(blocks(sound, []), filters)))
    assert torch.equal(torch.cat(list(log_mel(blocks(sound, sizes), filters))), whole)
    cut = np.concatenate(list(Egemaps()._pieces(blocks(sound, sizes))))
    np.testing.assert_array_equal(cut, np.concatenate(list(Egemaps()._pieces(blocks(sound, [])))))


@pytest.mark.parametrize(("samples", "expected"), [(1, 1), (400, 1), (559, 1), (560, 2), (16240, 100), (16400, 101)])
def test_the_number_of_windows(samples: int, expected: int) -> None:
    sound = np.arange(samples, dtype=np.float32)
    rows = np.concatenate(list(windows(blocks(sound, []), 400)))
    assert rows.shape == (expected, 400)
    np.testing.assert_array_equal(rows[:, 0], 160 * np.arange(expected))


@pytest.mark.parametrize("name", AUDIO)
def test_a_lower_rate_is_the_mean_of_the_frames_and_of_their_times(tmp_path: Path, name: str) -> None:
    clip = open_clip(wav(tmp_path / "a.wav", voice(1.05)))
    fine = make_extractor(name, rate=100).extract(clip)
    coarse = make_extractor(name, rate=20).extract(clip)
    assert (fine.rate, coarse.rate) == (100, 20)
    groups = range(0, len(fine.values), 5)
    np.testing.assert_allclose(
        coarse.values, [fine.values[i : i + 5].mean(axis=0) for i in groups], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(coarse.times, [fine.times[i : i + 5].mean() for i in groups], atol=1e-9)
    assert len(fine.values) % 5 != 0  # the last one is over fewer


@pytest.mark.parametrize("name", AUDIO)
def test_every_audio_extractor_keeps_to_the_contract(tmp_path: Path, name: str) -> None:
    extractor = make_extractor(name)
    path = wav(tmp_path / "a.wav", voice(3.0))
    stream = extractor.extract(open_clip(path))
    assert stream.values.dtype == np.float32
    assert stream.values.shape[1] == len(extractor.columns) == len(set(extractor.columns))
    assert len(stream.values) == pytest.approx(75, abs=2)
    assert stream.rate == 25
    assert (np.diff(stream.times) > 0).all()
    assert 0 < stream.times[0] < 0.06
    assert stream.times[-1] < 3
    assert np.ptp(stream.values, axis=0).min() > 0
    settings = json.loads(json.dumps(extractor.settings()))
    again = from_settings(settings)
    np.testing.assert_array_equal(again.extract(open_clip(path)).values, stream.values)
    with pytest.raises(ValueError, match="made with"):
        from_settings({**settings, "version": 99})

    part = extractor.extract(open_clip(path, start=1.0, end=2.0))
    # A segment begins anew: what looks around (slopes, smoothing, jitter from period to period) differs at its ends.
    np.testing.assert_allclose(part.values[8:-3], stream.values[33 : 25 + len(part.values) - 3], rtol=1e-3, atol=1e-3)

    silent = open_clip(wav(tmp_path / "b.wav", np.zeros(16000, np.float32)))
    assert np.isfinite(extractor.extract(silent).values).all()
    assert silent.notes == ["audio: silent throughout (below -80 dB)"]
    for seconds in (0.001, 0.02, 0.05):
        short = open_clip(wav(tmp_path / "c.wav", tone(seconds)))
        assert len(extractor.extract(short).values) == 1
    dumb = extractor.extract(open_clip(write_clip(tmp_path / "d.mp4", pictures=map(square, range(5)))))
    assert (dumb.absent, dumb.values.shape) == ("no audio track", (0, len(extractor.columns)))


@pytest.mark.parametrize("name", AUDIO)
@pytest.mark.parametrize("rate", [0, -1, 30, 200, float("nan")])
def test_rates_that_divide_no_hundred_are_refused(name: str, rate: float) -> None:
    with pytest.raises(ValueError, match="`rate` should divide 100"):
        make_extractor(name, rate=rate)


def test_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`low` and `high` should rise"):
        LogMel(low=4000, high=300)
    with pytest.raises(ValueError, match=r"leave each filter a frequency. Found `bins = 300`"):
        LogMel(bins=300)
    with pytest.raises(ValueError, match=r"`coefficients` should be in 1 to 40. Found 41"):
        Mfcc(coefficients=41)
    with pytest.raises(ValueError, match=r"`deltas` should be 0, 1 or 2. Found `deltas = 3`"):
        Mfcc(deltas=3)


def test_egemaps_hears_the_pitch_and_the_loudness(tmp_path: Path) -> None:
    extractor = make_extractor("egemaps", rate=100)
    columns = list(extractor.columns)
    assert len(columns) == 25
    pitch, loudness = columns.index("F0semitoneFrom27.5Hz_sma3nz"), columns.index("Loudness_sma3")

    def look(sound: Values) -> Values:
        return extractor.extract(open_clip(wav(tmp_path / "a.wav", sound))).values

    for hertz in (110.0, 220.0):
        semitones = look(voice(2.0, pitch=hertz))[:, pitch]
        assert np.median(semitones[semitones > 0]) == pytest.approx(12 * np.log2(hertz / 27.5), abs=1)
    sound = voice(2.0)
    assert look(0.1 * sound)[:, loudness].mean() < 0.6 * look(sound)[:, loudness].mean()


def test_egemaps_does_not_let_loud_samples_wrap_around() -> None:
    from equipoise.features.egemaps import Egemaps

    sound = tone(1.0, hertz=200, level=1.0)
    limit = np.concatenate(list(Egemaps()._pieces(blocks(sound.clip(-0.999, 0.999), []))))
    louder = np.concatenate(list(Egemaps()._pieces(blocks(1.004 * sound, []))))
    np.testing.assert_allclose(louder[:, 0], limit[:, 0], rtol=0.05)


def test_pieces_of_a_long_recording_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.features import egemaps

    sound = voice(8.3)
    whole = egemaps.Egemaps()._process(sound)
    monkeypatch.setattr(egemaps, "_PIECE", 2 * 16000)
    pieces = list(egemaps.Egemaps()._pieces(blocks(sound, [5000] * 26)))
    assert len(pieces) > 3
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-3, atol=1e-3)


def test_egemaps_says_what_its_licence_allows(caplog: pytest.LogCaptureFixture) -> None:
    from equipoise.features.egemaps import _opensmile

    _opensmile.cache_clear()
    with caplog.at_level(logging.WARNING):
        settings = make_extractor("egemaps").settings()
        make_extractor("egemaps")
    assert "non-commercial" in settings["licence"]
    assert [record.getMessage().count("non-commercial") for record in caplog.records] == [1]

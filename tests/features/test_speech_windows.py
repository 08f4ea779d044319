from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.features.clip import AudioBlock
from equipoise.features.speech_windows import is_silent, speech_windows

RATE = 1000
Sound = npt.NDArray[np.float32]


def blocks(sound: Sound, sizes: Sequence[int]) -> Iterator[AudioBlock]:
    start = 0
    for size in sizes:
        yield AudioBlock(start / RATE, sound[start : start + size])
        start += size
    yield AudioBlock(start / RATE, sound[start:])


def noise(seconds: float, seed: int = 0) -> Sound:
    return np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * RATE)).astype(np.float32)


def test_a_window_ends_in_the_pause_of_its_last_third() -> None:
    sound = noise(20)
    # The pause at 3 s is longer, but lies in the first two thirds of ten seconds.
    sound[2500:3500] = 0.001
    sound[8000:8300] = 0.001
    windows = list(speech_windows(blocks(sound, []), RATE, longest=10))
    assert windows[0][0] == 0
    assert 8.0 <= len(windows[0][1]) / RATE <= 8.3
    assert windows[1][0] == len(windows[0][1]) / RATE


def test_silence_is_left_out_and_times_go_on() -> None:
    sound = np.concatenate([noise(8), np.zeros(20_000, np.float32), noise(3, 1)])
    windows = list(speech_windows(blocks(sound, []), RATE, longest=10))
    assert windows[0][0] == 0
    last_start, last = windows[-1]
    assert last_start + len(last) / RATE == pytest.approx(31)
    assert sum(len(samples) for _, samples in windows) < 25_000


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(0, 9000), max_size=6), seed=st.integers(0, 99))
def test_windows_hold_all_of_the_sound_however_it_is_cut(sizes: list[int], seed: int) -> None:
    sound = noise(25, seed)
    windows = list(speech_windows(blocks(sound, sizes), RATE, longest=5))
    assert np.array_equal(np.concatenate([samples for _, samples in windows]), sound)
    lengths = [len(samples) / RATE for _, samples in windows]
    assert [start for start, _ in windows] == pytest.approx(np.cumsum([0, *lengths[:-1]]))
    assert max(lengths) <= 5
    assert min(lengths[:-1]) >= 5 * 2 / 3 - 0.1


def test_nothing_gives_nothing() -> None:
    assert list(speech_windows(iter(()), RATE)) == []
    assert list(speech_windows([AudioBlock(0.0, np.zeros(0, np.float32))], RATE)) == []


def test_silence_is_below_a_thousandth() -> None:
    click = np.zeros(500, np.float32)
    click[300:320] = 0.0011
    assert not is_silent(click, RATE)
    assert is_silent(click * 0.9, RATE)

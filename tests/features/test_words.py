from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.features.stream import FeatureStream, no_frames
from equipoise.features.transcript import Word
from equipoise.features.words import pool_to_words


def stream(values: list[list[float]], rate: float = 10.0, notes: tuple[str, ...] = ()) -> FeatureStream:
    array = np.array(values, np.float32)
    return FeatureStream(array, np.array([(row + 0.5) / rate for row in range(len(array))]), rate, notes=notes)


def test_a_word_is_the_mean_of_the_frames_whose_middles_it_holds() -> None:
    # Middles at 0.05, 0.15, ..., 0.55.
    frames = stream([[1, 10], [2, 20], [4, 40], [8, 80], [16, 160], [32, 320]])
    words = [Word("a", 0.0, 0.2), Word("b", 0.2, 0.55), Word("c", 0.55, 0.6)]
    pooled = pool_to_words(frames, words)
    # 0.55 is where b ends, so its frame is c's alone.
    assert pooled.values.tolist() == [[1.5, 15], [pytest.approx(28 / 3), pytest.approx(280 / 3)], [32, 320]]
    assert pooled.times.tolist() == pytest.approx([0.1, 0.375, 0.575])
    assert pooled.rate == 0
    assert pooled.notes == ()


def test_a_word_between_two_middles_takes_the_frame_it_lies_in() -> None:
    frames = stream([[1], [2], [4]])
    assert pool_to_words(frames, [Word("a", 0.16, 0.18)]).values.tolist() == [[2]]
    assert pool_to_words(frames, [Word("a", 0.21, 0.23)]).values.tolist() == [[4]]


def test_a_word_after_the_track_is_zero_and_noted() -> None:
    pooled = pool_to_words(stream([[1], [2]], notes=("breaks off",)), [Word("a", 0, 0.2), Word("b", 5, 6)])
    assert pooled.values.tolist() == [[1.5], [0]]
    assert pooled.notes == ("breaks off", "1 of 2 words without a frame")


def test_frames_that_are_not_evenly_spaced_reach_no_word_they_do_not_lie_in() -> None:
    uneven = FeatureStream(np.ones((2, 1), np.float32), np.array([0.1, 1.0]), 0.0)
    assert pool_to_words(uneven, [Word("a", 0.0, 0.2), Word("b", 0.4, 0.5)]).values.tolist() == [[1], [0]]


def test_nothing_to_pool_says_why() -> None:
    absent = no_frames(3, "no audio track")
    assert pool_to_words(absent, [Word("a", 0, 1)]) is absent
    none = pool_to_words(stream([[1, 2]]), [])
    assert (none.values.shape, none.absent) == ((0, 2), "no spoken word with a time")
    far = pool_to_words(stream([[1, 2]]), [Word("a", 7, 8)])
    assert (far.values.shape, far.absent) == ((0, 2), "no frame in any spoken word")


def test_words_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"order of their times\. Found 'b' too late"):
        pool_to_words(stream([[1]]), [Word("a", 3, 4), Word("b", 1, 2)])


lengths = st.lists(st.integers(1, 7), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(lengths=lengths, seed=st.integers(0, 999))
def test_words_side_by_side_keep_the_sum_of_the_frames(lengths: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(sum(lengths), 3)).astype(np.float32)
    frames = FeatureStream(values, np.array([(row + 0.5) / 25 for row in range(len(values))]), 25.0)
    edges = np.cumsum([0, *lengths]) / 25
    words = [Word(str(row), edges[row], edges[row + 1]) for row in range(len(lengths))]
    pooled = pool_to_words(frames, words)
    assert (pooled.values * np.array(lengths)[:, None]).sum(0) == pytest.approx(values.sum(0), abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(start=st.floats(0, 2), length=st.floats(0, 3), seed=st.integers(0, 999))
def test_a_mean_lies_within_its_frames_and_a_constant_stays(start: float, length: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(40, 2)).astype(np.float32)
    values[:, 1] = 0.7
    frames = FeatureStream(values, (np.arange(40) + 0.5) / 10, 10.0)
    pooled = pool_to_words(frames, [Word("a", start, min(start + length, 4))]).values[0]
    assert values[:, 0].min() <= pooled[0] <= values[:, 0].max()
    assert pooled[1] == np.float32(0.7)

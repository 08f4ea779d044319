"""Times of frames come back from a dataset as they went in, however they are spaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equipoise.data import write_dataset
from equipoise.extraction.times import Times, frame_times, times_array, words_array
from equipoise.features.transcript import Word


@pytest.mark.parametrize(
    ("times", "rates", "width"),
    [
        ([0.0125 + np.arange(5) / 100, np.zeros(0), np.array([0.7])], [100.0, 0.0, 25.0], 2),
        ([0.0125 + np.arange(5) / 100, np.zeros(0), np.array([0.1, 0.4, 0.5])], [100.0, 0.0, 0.0], 2 + 5),
        ([np.array([0.0, 1.0, 3.0]), np.array([2.0])], [1.0, 1.0], 2 + 3),  # a rate that does not hold
    ],
)
def test_times_come_back(times: list[Times], rates: list[float], width: int, tmp_path: Path) -> None:
    table = times_array(lambda: iter(times), rates)
    assert table.shape == (len(times), width)
    data = write_dataset(
        tmp_path / "data",
        name="n",
        source="s",
        task="regression",
        modalities={"audio": [np.ones((len(each), 2)) for each in times]},
        labels=np.zeros(len(times)),
        ids=[str(row) for row in range(len(times))],
        splits=["train"] * len(times),
        texts=["x"] * len(times),
        arrays={"audio_times": table},
    )
    for row, each in enumerate(times):
        np.testing.assert_allclose(frame_times(data, "audio", row), each, atol=1e-12)
    assert data.verify() == []


def test_words_are_kept_with_start_and_end() -> None:
    table = words_array([(Word("a", 0.5, 1.0), Word("b", 1.0, 1.25)), None, ()])
    assert table is not None
    np.testing.assert_array_equal(table[0], [[0.5, 1.0], [1.0, 1.25]])
    assert np.isnan(table[1:]).all()
    assert words_array([None, ()]) is None

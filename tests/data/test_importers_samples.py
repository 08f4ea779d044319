"""Pickles that are lists of samples: MAG and GLoMo, HKT."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.data import DataError
from equipoise.data.importers import detect, import_dataset


def mag(words: list[str], value: float, label: Any, segment: Any) -> Any:
    t = len(words)
    return ((words, np.full((t, 47), value), np.full((t, 74), -value)), label, segment)


def mag_content() -> dict[str, list[Any]]:
    return {
        "train": [
            mag(["very", "good"], 1.0, np.array([[2.5]], dtype=np.float32), "abc[3]"),
            mag(["bad"], 2.0, -1.5, "abc[4]"),
        ],
        "dev": [mag(["so", "so", "film"], 3.0, np.array([[0.5, 1, 0, 0, 0, 0, 0]]), "d_e_7")],
        "test": [mag(["fine"], 4.0, [1.0], b"xyz[0]")],
    }


def saved(path: Path, data: Any) -> Path:
    path.write_bytes(pickle.dumps(data))
    return path


def test_mag_comes_out_as_written(tmp_path: Path) -> None:
    path = saved(tmp_path / "mosi.pkl", mag_content())
    assert detect(path) == "mag"
    dataset = import_dataset(path, tmp_path / "out")
    assert dataset.modalities == ("audio", "vision")
    assert dataset.manifest.modalities["audio"].dim == 74
    assert dataset.manifest.modalities["vision"].dim == 47
    np.testing.assert_array_equal(dataset.labels, np.array([2.5, -1.5, 0.5, 1.0], dtype=np.float32))
    assert dataset.columns["split"] == ["train", "train", "valid", "test"]
    assert dataset.texts == ["very good", "bad", "so so film", "fine"]
    assert dataset.ids == ["abc[3]", "abc[4]", "d_e_7", "xyz[0]"]
    assert dataset.groups == ["abc", "abc", "d_e", "xyz"]
    np.testing.assert_array_equal(dataset.sequence("vision", 2), np.full((3, 47), 3.0))
    np.testing.assert_array_equal(dataset.sequence("audio", 0), np.full((2, 74), -1.0))
    assert dataset.manifest.labels.range == (-3.0, 3.0)


def test_zero_frames_of_an_aligned_sample_stay(tmp_path: Path) -> None:
    data = mag_content()
    data["train"][0][0][1][1] = 0.0  # the last word has no face; its frame is not padding
    dataset = import_dataset(saved(tmp_path / "mosi.pkl", data), tmp_path / "out")
    assert dataset.sequence("vision", 0).shape == (2, 47)


@pytest.mark.parametrize(
    ("sample", "line"),
    [
        (
            (([], np.zeros((2, 47)), np.zeros((3, 74))), 1.0, "z[0]"),
            r"sample 2: lengths disagree: visual 2, acoustic 3",
        ),
        ((["a"] * 2, 1.0, "z[0]"), r"sample 2 should be \(\(words, visual, acoustic\), label, segment\)"),
        (((["a", "b"], np.zeros((1, 47)), np.zeros((1, 74))), 1.0, "z"), r"lengths disagree: words 2, visual 1"),
        (((["a"], np.ones((1, 47)), np.ones((1, 74))), 4.0, "z[0]"), r"^mosi\.pkl: .*\[-3, 3\]"),
        (((["a"], np.ones((1, 47)), np.ones((1, 74))), 1.0, "abc[3]"), r"'abc\[3\]'"),
        (((["a"], np.ones((1, 47)), np.ones((1, 74))), "good", "z[0]"), r"label should hold numbers"),
        (((["a"], np.ones((1, 47)), np.ones((1, 74))), [], "z[0]"), r"the label is empty"),
        (((["a"], np.ones((1, 46)), np.ones((1, 74))), 1.0, "z[0]"), r"^mosi\.pkl: .*47 features.* 46 in row 2"),
    ],
)
def test_a_broken_mag_sample_is_one_clear_line(tmp_path: Path, sample: Any, line: str) -> None:
    data = mag_content()
    data["train"].append(sample)
    path = saved(tmp_path / "mosi.pkl", data)
    with pytest.raises(DataError, match=line) as caught:
        import_dataset(path, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_an_empty_mag_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mosi\.pkl: dev: the split is empty"):
        import_dataset(saved(tmp_path / "mosi.pkl", {**mag_content(), "dev": []}), tmp_path / "out")


def hkt(value: float, words: str, sentences: list[str], label: Any, identity: Any) -> Any:
    def four(text: Any, t: int, v: float) -> Any:
        return (text, np.full((t, 91), v), np.full((t, 81), 2 * v), np.full((t, 4), 3 * v))

    before = sum(len(s.split()) for s in sentences)
    return (four(words, len(words.split()), value), four(sentences, before, -value), identity, label)


def hkt_content() -> dict[str, list[Any]]:
    return {
        "train": [hkt(1.0, "ha ha", ["a man", "walks in"], 1, 7), hkt(2.0, "no", [], 0.0, 8)],
        "dev": [hkt(3.0, "yes", ["well"], np.array([1]), 9)],
        "test": [hkt(4.0, "end", ["the"], 0, 10)],
    }


@pytest.mark.parametrize("context", ["prepend", "drop"])
def test_hkt_puts_the_context_before_the_utterance_or_drops_it(tmp_path: Path, context: str) -> None:
    path = saved(tmp_path / "ur_funny.pkl", hkt_content())
    assert detect(path) == "hkt"
    dataset = import_dataset(path, tmp_path / "out", context=context)
    assert {m: info.dim for m, info in dataset.manifest.modalities.items()} == {"vision": 91, "audio": 81, "hcf": 4}
    np.testing.assert_array_equal(dataset.labels, [1, 0, 1, 0])
    assert dataset.labels.dtype == np.int64
    assert dataset.manifest.labels.classes == ("not humorous", "humorous")
    assert dataset.ids == ["7", "8", "9", "10"]
    assert dataset.columns["split"] == ["train", "train", "valid", "test"]
    assert dataset.manifest.extra["context"] == context
    assert dataset.texts is not None
    if context == "prepend":
        assert dataset.texts[0] == "a man walks in ha ha"
        np.testing.assert_array_equal(dataset.sequence("audio", 0)[:, 0], [-2, -2, -2, -2, 2, 2])
    else:
        assert dataset.texts[0] == "ha ha"
        np.testing.assert_array_equal(dataset.sequence("audio", 0)[:, 0], [2, 2])
    np.testing.assert_array_equal(dataset.sequence("hcf", 1), np.full((1, 4), 6.0))


def test_the_classes_of_hkt_follow_the_corpus(tmp_path: Path) -> None:
    dataset = import_dataset(saved(tmp_path / "mustard.pkl", hkt_content()), tmp_path / "out")
    assert dataset.manifest.labels.classes == ("not sarcastic", "sarcastic")


def test_a_broken_hkt_sample_is_one_clear_line(tmp_path: Path) -> None:
    good = hkt(1.0, "ha ha", ["a man"], 1, 11)
    short = ((good[0][0], good[0][1][:1], *good[0][2:]), *good[1:])
    for sample, line in (
        ((*good[:2], 12, 2), r"train: sample 2: the label should be 0 or 1. Found 2"),
        (short, r"train: sample 2: lengths disagree: vision 3, audio 4, hcf 4"),
        ((good[0], good[1], 1), r"train: sample 2 should be \(utterance of 4 parts"),
        ((good[0], good[1], 7, 1), r"'7'"),
    ):
        data = hkt_content()
        data["train"].append(sample)
        with pytest.raises(DataError, match=line):
            import_dataset(saved(tmp_path / "x.pkl", data), tmp_path / "out")
    with pytest.raises(DataError, match="Parameter `context`"):
        import_dataset(saved(tmp_path / "x.pkl", hkt_content()), tmp_path / "out", context="after")

"""What the data tell before training, against hand-worked pools, the generator's truth and a real corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from equipoise.data import DataError, Dataset, synthetic, write_dataset
from equipoise.diagnostics._pooling import pooled, words_of
from equipoise.diagnostics.floors import data_report, label_balance

NAMES = ("text", "audio", "vision")


def written(path: Path, **given: Any) -> Dataset:
    n = len(given["labels"])
    rest = {"name": "hand", "source": "test", "task": "classification", "ids": [f"u{i}" for i in range(n)]}
    return write_dataset(path, **{**rest, **given})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Text tells much, audio less, vision nothing at all."""
    return synthetic(
        tmp_path_factory.mktemp("data") / "data",
        n=2000,
        seed=4,
        alone={"text": 0.5, "audio": 0.25, "vision": 0.0},
        shared=0.0,
        synergy=0.0,
        noise=0.25,
        feature_noise={"text": 0.2, "audio": 0.1, "vision": 0.1},
        dims={"text": 12, "audio": 12, "vision": 12},
    )


def test_floors_come_near_what_is_in_the_data_and_not_beyond(data: Dataset) -> None:
    ticks: list[tuple[int, int]] = []
    found = data_report(data, progress=lambda *at: ticks.append(at))
    best = data.manifest.extra["truth"]["bayes_r2"]
    assert list(found.floors) == [*NAMES, "text+audio+vision"]
    for name, floor in found.floors.items():
        assert floor.score.metric == "r2"
        assert floor.score.low < best[name] + 0.02
        assert floor.score.value > best[name] - 0.12
        assert (floor.score.p <= 0.01) == (name != "vision")
        assert floor.trained_on == 1400
        assert floor.metrics["mae"] < found.constant["mae"] + 0.05
    assert ticks == [(done, 5) for done in range(1, 6)]
    assert found.leakage is not None
    assert not found.leakage.leaks
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["floors"]["audio"]["metric"] == "r2"


def test_few_training_samples_are_drawn_where_there_are_many(data: Dataset) -> None:
    small = data_report(data, ["text"], most=100, leakage=False)
    assert small.floors["text"].trained_on == 100
    assert small.leakage is None
    assert small.floors["text"].score.value < data_report(data, ["text"], leakage=False).floors["text"].score.value
    assert list(small.floors) == ["text"]


def test_sequences_are_pooled_by_hand(tmp_path: Path) -> None:
    sequences = [[[1.0], [2], [3], [4], [5]], [[6.0], [10]], [], [[2.0]]]
    data = written(
        tmp_path / "data",
        modalities={"audio": [np.array(each, dtype=np.float32) for each in sequences]},
        labels=np.array([0, 1, 0, 1]),
        splits=["train"] * 4,
        texts=["said"] * 4,
    )
    expected: list[list[float]] = [
        [1.5, 2.5, 3.5, 4.5, 2**0.5, 1],  # frames 1 to 2, 2 to 3, 3 to 4, 4 to 5
        [6, 6, 10, 10, 2, 1],
        [0, 0, 0, 0, 0, 0],
        [2, 2, 2, 2, 0, 1],
    ]
    np.testing.assert_allclose(pooled(data, "audio", np.arange(4)), expected)
    np.testing.assert_allclose(pooled(data, "audio", np.array([3, 0])), [expected[3], expected[0]])


def test_single_frames_are_taken_as_they_are(tmp_path: Path) -> None:
    frames = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    data = written(tmp_path / "data", modalities={"audio": frames}, labels=np.array([0, 1]), splits=["train"] * 2)
    np.testing.assert_array_equal(pooled(data, "audio", np.arange(2)), [[1, 2, 1], [3, 4, 1]])


def test_transcripts_alone_are_a_bag_of_words_that_learned_from_training_only(tmp_path: Path) -> None:
    words = ["good fine", "bad awful", "good well", "bad poor"] * 15 + ["unheard unheard"] * 4
    data = written(
        tmp_path / "data",
        modalities={},
        labels=np.array([1, 0] * 32),
        splits=["train"] * 40 + ["valid"] * 10 + ["test"] * 14,
        texts=words,
    )
    bags = words_of(data, [data.rows("train"), data.rows("test")])
    assert bags[0].shape == (40, 6)
    assert not bags[1][-1].any()
    found = data_report(data)
    assert list(found.floors) == ["text"]
    assert found.floors["text"].score.value == pytest.approx(12 / 14)  # half of the unheard are right
    assert found.leakage is not None
    assert found.leakage.leaks


def test_token_ids_are_refused_or_read_by_their_words(tmp_path: Path) -> None:
    data = written(
        tmp_path / "data",
        modalities={"audio": np.ones((4, 2), dtype=np.float32)},
        labels=np.array([0, 1, 0, 1]),
        splits=["train", "train", "valid", "test"],
        texts=["a b"] * 4,
    )
    tokens = data.derive("text", key="ids", compute=lambda: [np.arange(3)] * 4)
    with pytest.raises(DataError, match="holds token ids"):
        pooled(tokens, "text", np.arange(2))
    assert list(data_report(tokens, leakage=False).floors) == ["text", "audio", "text+audio"]


def test_labels_by_hand(tmp_path: Path) -> None:
    rows = {"train": [0, 0, 1, 2], "valid": [0, 1], "test": [2, 2]}
    frames = np.zeros((8, 1), dtype=np.float32)
    splits = [name for name, labels in rows.items() for _ in labels]
    labels = np.array([label for each in rows.values() for label in each])
    found = label_balance(written(tmp_path / "c", modalities={"audio": frames}, labels=labels, splits=splits))
    assert found["train"].classes == [2, 1, 1]
    assert [found[name].largest for name in rows] == [0.5, 0.5, 1]
    assert [found[name].shift for name in rows] == [0, 0.25, 0.75]
    values = np.array([[0, 0], [2, 0], [0, 4], [2, 4], [1, 4], [1, 4], [4, 2], [2, 2]], dtype=np.float32)
    data = written(tmp_path / "r", modalities={"audio": frames}, labels=values, splits=splits, task="regression")
    balance = label_balance(data)
    assert balance["train"].mean == [1, 2]
    assert balance["train"].std == [1, 2]
    assert [balance[name].shift for name in rows] == [0, 1, 2]
    assert balance["test"].to_dict() == {"samples": 2, "mean": [3, 2], "std": [1, 0], "shift": 2}


def test_without_a_validation_split_a_fifth_of_training_chooses(data: Dataset, tmp_path: Path) -> None:
    splits = ["train" if name == "valid" else name for name in data.columns["split"]]
    merged = data.with_splits(tmp_path / "merged", splits)
    assert data_report(merged, ["text"], leakage=False).floors["text"].trained_on == 1280


def test_the_split_that_is_scored_neither_teaches_nor_chooses(tmp_path: Path) -> None:
    """With the labels of valid and test mixed up, a floor on valid is the same line: only its score falls."""
    random = np.random.default_rng(0)
    frames = random.normal(size=(200, 6)).astype(np.float32)
    labels = (frames @ random.normal(size=6) + random.normal(size=200)).astype(np.float32)
    given: dict[str, Any] = {"modalities": {"audio": frames}, "task": "regression"}
    given["splits"] = ["train"] * 100 + ["valid"] * 60 + ["test"] * 40
    mixed = np.append(labels[:100], random.permutation(labels[100:]))
    one, other = (
        data_report(written(tmp_path / name, labels=each, **given), split="valid", leakage=False)
        for name, each in (("own", labels), ("mixed", mixed))
    )
    assert one.floors["audio"].trained_on == 80
    assert one.floors["audio"].penalty == other.floors["audio"].penalty
    assert one.floors["audio"].score.samples == 60
    assert one.floors["audio"].score.value > 0.5 > 0.1 > other.floors["audio"].score.value
    data = written(tmp_path / "again", labels=labels, **given)
    with pytest.raises(DataError, match="learned on the training split"):
        data_report(data, ["audio"], split="train", leakage=False)
    assert data_report(data, [], split="train", leakage=False).floors == {}


def test_the_constant_answer_is_that_of_the_training_split(tmp_path: Path) -> None:
    labels = np.array([0, 1, 1, 1, 0, 1, 0, 0])
    frames: npt.NDArray[np.float32] = np.arange(8, dtype=np.float32)[:, None]
    splits = ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    data = written(tmp_path / "data", modalities={"audio": frames}, labels=labels, splits=splits)
    constant = data_report(data).constant
    assert constant["accuracy"] == 0
    assert constant["nll"] == pytest.approx(-np.log(0.25), rel=1e-6)


def test_data_that_cannot_be_judged_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no modality 'smell'"):
        data_report(data, ["smell"])
    untested = data.with_splits(tmp_path / "untested", ["train"] * len(data))
    with pytest.raises(DataError, match="a train and a test split"):
        data_report(untested)


def test_mosi_audio_is_hardly_better_than_a_constant(shared_data: Path, tmp_path: Path) -> None:
    source = np.load(shared_data / "mosi_utt.npz")
    data = written(
        tmp_path / "mosi",
        modalities={"audio": source["audio73"]},
        labels=source["label"],
        splits=source["split_std"].tolist(),
        groups=source["video_id"].tolist(),
        task="regression",
        scale="mosi",
    )
    found = data_report(data)
    audio = found.floors["audio"]
    assert audio.metrics["mae"] == pytest.approx(found.constant["mae"], abs=0.02)  # published floors: 1.470 and 1.467
    assert audio.metrics["corr"] < 0.2
    assert audio.score.groups == 31
    assert audio.score.low < 0
    assert found.leakage is not None
    assert not found.leakage.leaks

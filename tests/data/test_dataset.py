from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.data import DataError, Dataset, load, write_dataset

SPLITS = ["train", "test", "train", "valid", "train"]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Five rows; audio counts 1, 2, 3, … through its frames, and row 2 lacks it."""
    lengths = [2, 1, 0, 3, 1]
    ends = np.cumsum(lengths)
    frames = np.arange(1, 15, dtype=np.float64).reshape(7, 2)
    return write_dataset(
        tmp_path / "set",
        name="tiny",
        source="hand",
        task="regression",
        modalities={
            "audio": [frames[end - length : end] for end, length in zip(ends, lengths, strict=True)],
            "vision": [np.full(3, row) for row in range(5)],
        },
        labels=np.array([-3.0, 0.5, 1.0, 2.0, 3.0]),
        scale="mosi",
        ids=list("abcde"),
        splits=SPLITS,
        texts=["one", "two", 'thr,"ee\n', "four", "five"],
        speakers=["x", "x", "y", "y", "z"],
        unimodal_labels={"audio": np.array([0.0, 1, 2, 3, -1])},
        arrays={"latents": np.eye(5)},
    )


def test_what_was_written_is_read(dataset: Dataset) -> None:
    assert (len(dataset), dataset.modalities, dataset.splits) == (5, ("audio", "vision"), ("train", "valid", "test"))
    assert dataset.ids == list("abcde")
    assert dataset.texts == ["one", "two", 'thr,"ee\n', "four", "five"]
    assert dataset.speakers == ["x", "x", "y", "y", "z"]
    assert dataset.groups is None
    assert dataset.sequence("audio", 3).tolist() == [[7, 8], [9, 10], [11, 12]]
    assert dataset.sequence("audio", 2).shape == (0, 2)
    assert dataset.sequence("vision", 4).tolist() == [[4, 4, 4]]
    assert dataset.labels.tolist() == [-3, 0.5, 1, 2, 3]
    assert dataset.unimodal_labels("audio").tolist() == [0, 1, 2, 3, -1]
    assert dataset.array("latents").tolist() == np.eye(5).tolist()


def test_rows_of_a_split(dataset: Dataset) -> None:
    train = dataset.split("train")
    assert train.rows.tolist() == [0, 2, 4]
    assert train.ids() == ["a", "c", "e"]
    assert train.texts() == ["one", 'thr,"ee\n', "five"]
    assert train.targets.tolist() == [-3, 1, 3]
    assert train.unimodal_targets("audio").tolist() == [0, 2, -1]
    assert train.lengths("audio").tolist() == [2, 0, 1]


def test_batch_pads_with_zeros_and_masks(dataset: Dataset) -> None:
    batch = dataset.split("train").batch([2, 1, 0])
    assert batch.inputs["audio"].tolist() == [[[13, 14], [0, 0]], [[0, 0], [0, 0]], [[1, 2], [3, 4]]]
    assert batch.masks["audio"].tolist() == [[True, False], [False, False], [True, True]]
    assert batch.inputs["vision"].tolist() == [[[4.0] * 3], [[2.0] * 3], [[0.0] * 3]]
    assert batch.target.tolist() == [3, 1, -3]
    assert batch.index.tolist() == [4, 2, 0]
    assert (batch.inputs["audio"].dtype, batch.target.dtype) == (torch.float32, torch.float32)
    assert (batch.masks["audio"].dtype, batch.index.dtype) == (torch.bool, torch.int64)


def test_batch_without_a_frame_has_one_masked_step(dataset: Dataset) -> None:
    batch = dataset.split("train").batch([1], ["audio"])
    assert list(batch.inputs) == ["audio"]
    assert batch.inputs["audio"].tolist() == [[[0, 0]]]
    assert batch.masks["audio"].tolist() == [[False]]


def test_batch_is_the_callers(dataset: Dataset) -> None:
    split = dataset.split("train")
    first = split.batch([0])
    first.inputs["audio"].fill_(9)
    first.target.fill_(9)
    again = split.batch([0])
    assert again.inputs["audio"].tolist() == [[[1, 2], [3, 4]]]
    assert again.target.tolist() == [-3]
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 1


def test_statistics_are_of_the_splits_frames_alone(dataset: Dataset) -> None:
    mean, std = dataset.split("train").statistics("audio")
    frames = np.array([[1, 2], [3, 4], [13, 14]])
    assert np.allclose(mean, frames.mean(0), rtol=1e-12)
    assert np.allclose(std, frames.std(0), rtol=1e-12)


def test_statistics_of_many_pieces_far_from_zero(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sequences = [1e4 + random.normal(size=(int(random.integers(0, 5)), 3)) for _ in range(300)]
    data = write_dataset(
        tmp_path / "far", name="far", source="s", task="regression", modalities={"audio": sequences}, texts=["t"] * 300,
        labels=np.zeros(300), ids=[str(i) for i in range(300)], splits=["train"] * 300,
    )  # fmt: skip
    mean, std = data.split("train").statistics("audio")
    frames = np.concatenate(sequences).astype(np.float32).astype(np.float64)
    assert np.allclose(mean, frames.mean(0), rtol=1e-12)
    assert np.allclose(std, frames.std(0), rtol=1e-9)


def test_unknown_names_are_named(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"no modality 'smell'\. It has: audio, vision"):
        dataset.ragged("smell")
    with pytest.raises(DataError, match=r"no split 'dev'\. It has: train, valid, test"):
        dataset.split("dev")
    with pytest.raises(DataError, match=r"no array 'x'\. It has: latents"):
        dataset.array("x")


def test_describe_is_plain_json(dataset: Dataset) -> None:
    described = json.loads(json.dumps(dataset.describe()))
    assert described["task"] == "regression"
    assert described["splits"] == {"train": 3, "valid": 1, "test": 1}
    assert described["modalities"]["audio"]["missing"] == 1
    assert described["label_summary"]["train"]["mean"] == pytest.approx(1 / 3)


def test_load_says_what_is_missing(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json not found"):
        load(tmp_path / "nowhere")
    (dataset.path / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"should hold labels\.npy"):
        load(dataset.path)


def test_verify_finds_what_was_changed(dataset: Dataset) -> None:
    assert dataset.verify() == []
    audio = dataset.path / "audio.npy"
    content = bytearray(audio.read_bytes())
    content[-1] ^= 1
    audio.write_bytes(content)
    (dataset.path / "vision.npy").unlink()
    np.save(dataset.path / "labels.npy", np.array([-3, 0.5, 1, 2, 30], dtype=np.float32))
    findings = dataset.verify()
    assert [line.split(":")[0] for line in findings[:3]] == ["audio.npy", "labels.npy", "vision.npy"]
    assert "missing" in findings[2]
    assert "should lie in [-3, 3]. Found 1 outside, the first 30.0 in row 4" in findings[3]
    assert len(findings) == 4


def test_verify_survives_broken_arrays(dataset: Dataset) -> None:
    (dataset.path / "audio.npy").write_bytes((dataset.path / "audio.npy").read_bytes()[:-4])
    (dataset.path / "vision.offsets.npy").write_bytes(b"no array")
    findings = load(dataset.path).verify()
    assert any("audio.npy is not a readable array" in line for line in findings)
    assert any("vision.offsets.npy is not a readable array" in line for line in findings)


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("labels.npy", [-3, 0.5, np.nan, 2, 3], "is damaged: .*should be finite. Found nan in row 2"),
        ("labels.npy", [-3, 0.5, 1, 2, 30], r"is damaged: .*should lie in \[-3, 3\]"),
        ("labels.npy", [[-3, 0], [1, 1], [1, 1], [2, 2], [3, 3]], "should have 1 targets a sample. Found 2"),
        ("audio.offsets.npy", [0, 2, 99, 3, 6, 7], r"audio\.offsets\.npy should rise from 0"),
        ("audio.npy", [[np.nan, 0]] * 7, "'audio' should be finite. Found NaN or infinity in the split 'train'"),
    ],
)
def test_damage_is_found_before_it_can_be_learned(dataset: Dataset, file: str, content: list[Any], line: str) -> None:
    old = np.load(dataset.path / file, allow_pickle=False)
    np.save(dataset.path / file, np.array(content, dtype=old.dtype))
    with pytest.raises(DataError, match=line) as caught:
        load(dataset.path).split("train").statistics("audio")
    assert "\n" not in str(caught.value)


def test_a_split_with_other_rows_than_the_manifest_says_is_refused(dataset: Dataset) -> None:
    table = dataset.path / "samples.csv"
    table.write_text(table.read_text().replace(",test", ",tset"))
    with pytest.raises(DataError, match=r"samples\.csv should have as many rows .*Found .*'tset': 1"):
        load(dataset.path).split("train")


def test_other_splits_share_the_arrays(tmp_path: Path, dataset: Dataset) -> None:
    other = dataset.with_splits(tmp_path / "other", ["train", "train", "train", "train", "valid"])
    assert other.splits == ("train", "valid")
    assert other.split("valid").ids() == ["e"]
    assert other.speakers == dataset.speakers
    assert other.verify() == []
    assert (other.path / "audio.npy").samefile(dataset.path / "audio.npy")
    assert dataset.split("valid").ids() == ["d"]
    with pytest.raises(DataError, match=r"'dev'"):
        dataset.with_splits(tmp_path / "third", ["dev"] * 5)
    assert not (tmp_path / "third").exists()


def test_other_splits_in_place(dataset: Dataset) -> None:
    changed = dataset.with_splits(dataset.path, ["train"] * 5, overwrite=True)
    assert changed.splits == ("train",)
    assert changed.verify() == []
    assert changed.sequence("audio", 3).tolist() == [[7, 8], [9, 10], [11, 12]]


class Counted:
    """Token ids 0 … row, and how often they were computed."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls = 0
        self.fail_at = fail_at

    def __call__(self) -> Iterator[np.ndarray]:
        self.calls += 1
        for row in range(5):
            if row == self.fail_at:
                raise KeyboardInterrupt
            yield np.arange(row)


def test_derived_tokens_are_computed_once(dataset: Dataset) -> None:
    compute = Counted()
    derived = dataset.derive("text", key="tokens/of a model", compute=compute)
    again = load(dataset.path).derive("text", key="tokens/of a model", compute=compute)
    assert compute.calls == 1
    assert dataset.modalities == ("audio", "vision")
    for data in (derived, again):
        assert data.modalities == ("audio", "vision", "text")
        assert (data.manifest.modalities["text"].dim, data.manifest.modalities["text"].dtype) == (0, "int32")
        batch = data.split("train").batch([0, 1, 2], ["text"])
        assert batch.inputs["text"].dtype == torch.int64
        assert batch.inputs["text"].tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 2, 3]]
        assert batch.masks["text"].sum(1).tolist() == [0, 2, 4]
    with pytest.raises(DataError, match="token ids"):
        derived.split("train").statistics("text")
    assert derived.verify() == []


def test_derived_features_may_replace_a_modality(dataset: Dataset) -> None:
    derived = dataset.derive(
        "audio", key="double", compute=lambda: (2 * dataset.sequence("audio", r) for r in range(5))
    )
    assert derived.sequence("audio", 3).tolist() == [[14, 16], [18, 20], [22, 24]]
    assert dataset.sequence("audio", 3).tolist() == [[7, 8], [9, 10], [11, 12]]


def test_another_key_or_source_is_computed_anew(tmp_path: Path, dataset: Dataset) -> None:
    compute = Counted()
    dataset.derive("text", key="a", compute=compute)
    dataset.derive("text", key="b", compute=compute)
    assert compute.calls == 2
    samples = dataset.path / "samples.csv"
    samples.write_bytes(samples.read_bytes().replace(b"four", b"fore"))
    load(dataset.path).derive("text", key="a", compute=compute)
    assert compute.calls == 3


def test_half_a_cache_is_not_read(dataset: Dataset) -> None:
    with pytest.raises(KeyboardInterrupt):
        dataset.derive("text", key="a", compute=Counted(fail_at=3))
    assert list(dataset.cache_dir.iterdir()) == []
    compute = Counted()
    dataset.derive("text", key="a", compute=compute)
    (folder,) = dataset.cache_dir.iterdir()
    (folder / "meta.json").write_text('{"sour')  # a copy that was cut short
    derived = dataset.derive("text", key="a", compute=compute)
    assert compute.calls == 2
    assert derived.sequence("text", 4).tolist() == [0, 1, 2, 3]
    assert len(list(dataset.cache_dir.iterdir())) == 1


def test_derived_rows_must_match(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"What 'a' computes should have 5 sequences, one a sample\. Found 2"):
        dataset.derive("text", key="a", compute=lambda: iter([np.ones((1, 2))] * 2))

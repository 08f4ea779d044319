"""CMU-SDK computational sequences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from equipoise.data import DataError
from equipoise.data.importers import detect, import_dataset


def csd(path: Path, entries: dict[str, tuple[Any, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as h5:
        root = h5.create_group(path.stem)
        data = root.create_group("data")
        for name, (features, intervals) in entries.items():
            group = data.create_group(name)
            group["features"], group["intervals"] = features, intervals
        meta = root.create_group("metadata")
        meta.create_dataset("root name", data=[json.dumps(path.stem)], dtype=h5py.string_dtype())


def steps(n: int, width: float) -> Any:
    return np.array([[i * width, (i + 1) * width] for i in range(n)])


def corpus(folder: Path) -> Path:
    """Video a has segments [0, 1) and [1, 3); video b one, [0, 2). Frame k of a stream has the value k."""
    labels = {"a": ([[1.5], [-2.0]], [[0, 1], [1, 3]]), "b": ([[0.5]], [[0, 2]]), "c": ([[3.0]], [[0, 1]])}
    csd(folder / "CMU_MOSI_Opinion_Labels.csd", labels)
    frames = {v: (np.arange(n)[:, None] * np.ones(74), steps(n, 0.5)) for v, n in (("a", 6), ("b", 4), ("c", 2))}
    csd(folder / "CMU_MOSI_COVAREP.csd", frames)
    # Already cut into segments, and b was never filmed.
    faces = {"a[0]": (np.full((2, 47), 7.0), steps(2, 0.5)), "a[1]": (np.full((3, 47), 8.0), steps(3, 0.5))}
    csd(folder / "CMU_MOSI_VisualFacet_4.1.csd", {**faces, "c": (np.full((1, 47), 9.0), [[0, 1]])})
    words = {
        "a": (np.array([[b"sp"], [b"so"], [b"good"]]), [[0, 0.4], [0.4, 1], [1, 2]]),
        "b": (np.array([[b"no"]]), [[0, 1]]),
    }
    csd(folder / "CMU_MOSI_TimestampedWords.csd", {**words, "c": (np.array([[b"end"]]), [[0, 1]])})
    (folder / "splits.json").write_text(json.dumps({"train": ["a"], "valid": ["b"], "test": ["c"]}))
    return folder


def test_segments_take_the_frames_of_their_interval(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "mosi")
    assert detect(folder) == "csd"
    dataset = import_dataset(folder, tmp_path / "out")
    assert dataset.ids == ["a[0]", "a[1]", "b[0]", "c[0]"]
    assert dataset.groups == ["a", "a", "b", "c"]
    assert dataset.columns["split"] == ["train", "train", "valid", "test"]
    np.testing.assert_array_equal(dataset.labels, np.array([1.5, -2.0, 0.5, 3.0], dtype=np.float32))
    # Midpoints .25, .75 | 1.25, 1.75, 2.25, 2.75
    np.testing.assert_array_equal(dataset.sequence("audio", 0)[:, 0], [0, 1])
    np.testing.assert_array_equal(dataset.sequence("audio", 1)[:, 73], [2, 3, 4, 5])
    np.testing.assert_array_equal(dataset.sequence("vision", 1), np.full((3, 47), 8.0))
    assert dataset.sequence("vision", 2).shape == (0, 47)
    assert dataset.texts == ["so", "good", "no", "end"]


def test_what_no_split_names_is_left_out_and_one_split_may_hold_all(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "mosi")
    (folder / "splits.json").write_text(json.dumps({"train": ["a[1]"], "test": ["c"]}))
    assert import_dataset(folder, tmp_path / "out").ids == ["a[1]", "c[0]"]
    assert import_dataset(folder, tmp_path / "all", split="train").manifest.splits == {"train": 4}


def test_roles_can_be_named_and_a_label_column_chosen(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    csd(folder / "y.csd", {"a": ([[0.0, 2.0]], [[0, 1]]), "b": ([[0.0, 3.0]], [[0, 1]])})
    csd(folder / "mfcc.csd", {"a": ([[1.0, 2.0]], [[0, 1]]), "b": ([[3.0, 4.0]], [[0, 1]])})
    with pytest.raises(DataError, match="no modality follows from the name"):
        import_dataset(folder, tmp_path / "out", split="train")
    names = {"label": "y.csd", "audio": "mfcc.csd"}
    dataset = import_dataset(folder, tmp_path / "out", split="train", map=names, column=1)
    np.testing.assert_array_equal(dataset.labels, np.array([2, 3], dtype=np.float32))
    np.testing.assert_array_equal(dataset.sequence("audio", 1), [[3, 4]])


def test_a_broken_folder_is_one_clear_line(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "m")
    for change, line in (
        ({"column": 1}, "no label column 1"),
        ({"map": {"audio": "x.csd"}}, r"no file x\.csd"),
        ({"map": {"audio": "CMU_MOSI_COVAREP.csd"}}, r"no \.csd file looks like labels"),
        ({"split": "nowhere.json"}, "no split file nowhere.json"),
    ):
        with pytest.raises(DataError, match=line):
            import_dataset(folder, tmp_path / "out", **change)
    (folder / "splits.json").write_text(json.dumps({"train": ["a"], "holdout": ["b"]}))
    with pytest.raises(DataError, match="unknown split 'holdout'"):
        import_dataset(folder, tmp_path / "out")
    (folder / "splits.json").write_text("[1]")
    with pytest.raises(DataError, match="should be JSON of the form"):
        import_dataset(folder, tmp_path / "out")
    (folder / "splits.json").write_text(json.dumps({"train": ["z"]}))
    with pytest.raises(DataError, match="names no video"):
        import_dataset(folder, tmp_path / "out")
    csd(folder / "CMU_MOSI_COVAREP.csd", {"a": (np.zeros((3, 74)), steps(2, 0.5))})
    with pytest.raises(DataError, match=r"COVAREP\.csd: a: lengths disagree"):
        import_dataset(folder, tmp_path / "out", split="train")
    (folder / "CMU_MOSI_COVAREP.csd").write_bytes(b"no")
    with pytest.raises(DataError, match="not an HDF5 computational sequence"):
        import_dataset(folder, tmp_path / "out", split="train")
    csd(folder / "OpenFace.csd", {"a": (np.zeros((3, 9)), steps(3, 0.5))})
    with pytest.raises(DataError, match="both look like vision"):
        import_dataset(folder, tmp_path / "out", split="train")

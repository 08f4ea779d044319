from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.data import DataError, load, write_dataset


def arguments(**changes: Any) -> dict[str, Any]:
    """Four good rows, with changes."""
    good: dict[str, Any] = {
        "name": "n",
        "source": "s",
        "task": "regression",
        "modalities": {"audio": [np.ones((2, 3))] * 4},
        "labels": np.array([-1.0, 0.0, 1.0, 3.0]),
        "ids": list("abcd"),
        "splits": ["train", "train", "valid", "test"],
    }
    return {**good, **changes}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no label": ({"labels": np.zeros(0)}, "`labels` should have at least one entry"),
    "label not finite": ({"labels": np.array([0, np.nan, 0, 0])}, "`labels` should be finite. Found nan in row 1"),
    "label out of range": (
        {"label_range": (-1, 1)},
        r"should lie in \[-1, 1\]. Found 1 outside, the first 3.0 in row 3",
    ),
    "label out of scale": ({"scale": "sims"}, r"should lie in \[-1, 1\]"),
    "label of text": ({"labels": np.array(["a"] * 4)}, "should hold numbers"),
    "class not integer": ({"task": "classification"}, "class indices"),
    "class unknown": (
        {"task": "classification", "labels": np.array([0, 1, 2, 1]), "classes": ["no", "yes"]},
        r"should lie in \[0, 1\]. Found 1 outside, the first 2 in row 2",
    ),
    "target names": ({"target_names": ["a", "b"]}, "`target_names` should have 1 entries"),
    "task": ({"task": "ranking"}, "`task` should be regression or classification. Found 'ranking'"),
    "id twice": ({"ids": list("abca")}, "no id twice. Found 'a' in rows 0, 3"),
    "id empty": ({"ids": ["a", "", "c", "d"]}, "no empty id. Found one in row 1"),
    "ids too few": ({"ids": list("abc")}, "`ids` should have 4 entries, one a label. Found 3"),
    "texts too many": ({"texts": list("abcde")}, "`texts` should have 4 entries, one a label. Found 5"),
    "id not text": ({"ids": [1, 2, 3, 4]}, "`ids` should hold strings"),
    "split unknown": ({"splits": ["train", "dev", "valid", "test"]}, "train, valid or test. Found 'dev'"),
    "split empty": ({"splits": ["test"] * 4}, "the split train at least one sample"),
    "no modality": ({"modalities": {}}, "at least one modality"),
    "modality empty": ({"modalities": {"audio": [np.zeros((0, 3))] * 4}}, "`audio` has no frame in any sample"),
    "sample empty": (
        {"modalities": {"audio": [np.ones((2, 3))] * 3 + [np.zeros((0, 3))]}},
        r"a frame in some modality. Found none for 'd' \(row 3\)",
    ),
    "dim changes": (
        {"modalities": {"audio": [np.ones((2, 3))] * 3 + [np.ones((2, 4))]}},
        "`audio` should have 3 features a frame, as before. Found 4 in row 3",
    ),
    "too few sequences": ({"modalities": {"audio": [np.ones((2, 3))] * 3}}, "4 sequences, one a sample. Found 3"),
    "too many sequences": ({"modalities": {"audio": [np.ones((2, 3))] * 5}}, "4 sequences, one a sample. Found more"),
    "sequence of objects": ({"modalities": {"audio": [np.array([None])] * 4}}, "row 0 should hold numbers"),
    "sequence too deep": ({"modalities": {"audio": [np.ones((1, 2, 3))] * 4}}, r"row 0 should hold numbers \[T, d\]"),
    "name leaves the folder": ({"modalities": {"../audio": [np.ones(3)] * 4}}, "can't name a modality"),
    "name is taken": ({"modalities": {"labels": [np.ones(3)] * 4}}, "can't name a modality"),
    "name twice": ({"arrays": {"audio": np.ones(4)}}, "not reuse the name of a modality. Found audio"),
    "array of objects": ({"arrays": {"x": np.array([{}] * 4)}}, "plain arrays of 4 rows"),
    "extractor of nothing": ({"extractor": {"vision": "x"}}, "should name modalities of the dataset. Found vision"),
    "unimodal label": (
        {"unimodal_labels": {"audio": np.full(4, np.inf)}},
        r"`unimodal_labels\['audio'\]` should be fin",
    ),
    "extra": ({"extra": {"x": object()}}, "`extra` should hold plain JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        write_dataset(tmp_path / "set", **arguments(**changes))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_non_finite_features_become_zero_and_are_counted(tmp_path: Path) -> None:
    frames = np.array([[1.0, -np.inf, np.nan], [np.inf, 2.0, 1e300]])  # the last has no float32
    data = write_dataset(
        tmp_path / "set",
        **arguments(modalities={"audio": [frames, *[np.ones((1, 3))] * 3], "vision": [np.ones(2)] * 4}),
    )
    assert data.sequence("audio", 0).tolist() == [[1, 0, 0], [0, 2, 0]]
    assert data.manifest.modalities["audio"].repaired == 4
    assert data.manifest.modalities["vision"].repaired == 0
    assert np.isnan(frames[0, 2])  # the caller's array is left alone


def test_manifest_tells_the_sequences(tmp_path: Path) -> None:
    sequences = [np.ones((2, 3), np.int8), np.zeros((0, 3)), np.ones(3), np.ones((6, 3), np.float16)]
    data = write_dataset(
        tmp_path / "set", **arguments(modalities={"audio": sequences}, texts=list("abcd"), extractor={"audio": "MFCC"})
    )
    info = data.manifest.modalities["audio"]
    assert (info.dim, info.dtype, info.frames, info.missing) == (3, "float32", 9, 1)
    assert (info.shortest, info.mean, info.longest, info.extractor) == (1, 3.0, 6, "MFCC")
    array = np.load(data.path / "audio.npy", allow_pickle=False)
    assert (array.dtype, array.shape) == (np.float32, (9, 3))
    assert np.load(data.path / "audio.offsets.npy", allow_pickle=False).tolist() == [0, 2, 2, 3, 9]


def test_labels_of_each_kind(tmp_path: Path) -> None:
    several = write_dataset(
        tmp_path / "a",
        **arguments(labels=np.arange(8).reshape(4, 2), target_names=["warm", "calm"], label_range=(0, 7)),
    )
    assert several.manifest.labels.outputs == 2
    assert several.split("train").batch([1]).target.tolist() == [[2.0, 3.0]]
    one = write_dataset(tmp_path / "one", **arguments(labels=np.array([[-1.0], [0.0], [1.0], [3.0]])))
    assert one.split("train").batch([0, 1]).target.tolist() == [-1.0, 0.0]  # [N, 1] would broadcast against [N]
    classes = write_dataset(tmp_path / "b", **arguments(task="classification", labels=np.array([0, 2, 1, 0], np.uint8)))
    assert (classes.manifest.task, classes.manifest.labels.classes) == ("classification", ("0", "1", "2"))
    target = classes.split("train").batch([0, 1]).target
    assert (str(target.dtype), target.tolist()) == ("torch.int64", [0, 2])
    mosi = write_dataset(tmp_path / "c", **arguments(scale="mosi"))
    assert mosi.manifest.labels.range == (-3, 3)


def test_texts_alone_are_a_dataset(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "set", **arguments(modalities={}, texts=["a", "", "c\r", "d"]))
    assert data.split("train").texts() == ["a", ""]
    assert data.split("valid").texts() == ["c\r"]


def test_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_dataset(tmp_path / name, **arguments(extra={"note": "é"}))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", **arguments(name="first"))
    with pytest.raises(DataError, match="exists"):
        write_dataset(tmp_path / "set", **arguments(name="second"))
    with pytest.raises(DataError, match="no id twice"):
        write_dataset(tmp_path / "set", **arguments(ids=list("aaaa")), overwrite=True)
    assert load(tmp_path / "set").manifest.name == "first"
    write_dataset(tmp_path / "set", **arguments(name="second"), overwrite=True)
    assert load(tmp_path / "set").manifest.name == "second"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("dear")
    with pytest.raises(DataError, match="is no dataset, so it is not overwritten"):
        write_dataset(tmp_path / "home", **arguments(), overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "set"]


def test_sequences_are_streamed(tmp_path: Path) -> None:
    def endless() -> Iterator[np.ndarray]:
        for _ in range(400):
            yield np.ones((250, 100), dtype=np.float32)  # 100 kB each, 40 MB together

    tracemalloc.start()
    write_dataset(
        tmp_path / "set",
        **arguments(
            modalities={"audio": endless()},
            labels=np.zeros(400),
            ids=[f"{i}" for i in range(400)],
            splits=["train"] * 400,
        ),
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def many(stop: int | None = None) -> dict[str, Any]:
    """10 MB in 100 rows; the process kills itself before row `stop`."""

    def sequences() -> Iterator[np.ndarray]:
        for row in range(100):
            if row == stop:
                signal.raise_signal(signal.SIGKILL)
            yield np.ones((250, 100))

    return arguments(
        name="new",
        modalities={"audio": sequences()},
        labels=np.zeros(100),
        ids=[str(row) for row in range(100)],
        splits=["train"] * 100,
        overwrite=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_leaves_the_old_dataset_and_nothing_else(tmp_path: Path) -> None:
    import resource

    old = write_dataset(tmp_path / "set", **arguments(name="old"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # no file may grow past 1 MiB: the write fails midway
    try:
        with pytest.raises(OSError, match=f"File too large: '{old.path}'"):
            write_dataset(old.path, **many())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load(old.path).manifest.name == "old"
    assert load(old.path).verify() == []
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_killed_write_leaves_the_old_dataset(tmp_path: Path) -> None:
    old = write_dataset(tmp_path / "set", **arguments(name="old"))
    code = "import sys, runpy; m = runpy.run_path(sys.argv[1]); m['write_dataset'](sys.argv[2], **m['many'](50))"
    command = [sys.executable, "-c", code, __file__, str(old.path)]
    status = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    assert status == -signal.SIGKILL
    assert load(old.path).manifest.name == "old"
    assert load(old.path).verify() == []

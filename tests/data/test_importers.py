"""Finding the format, and what all importers share."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.data import DataError, load
from equipoise.data.importers import FORMATS, detect, import_dataset, read
from equipoise.data.importers._common import content_lengths, segment_video
from equipoise.data.unpickle import UnsafePickleError


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_formats_are_named_once_each() -> None:
    assert list(FORMATS) == ["mmsa", "mag", "hkt", "ur-funny", "mustard", "cherma", "csd", "npz", "csv"]


def test_what_fits_no_layout_or_two_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    contents: list[Any] = [{"a": 1}, [1, 2], {"train": []}, {"train": [(1, 2)]}]
    for content in contents:
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"x\.pkl has none of the known layouts"):
            detect(path)
    (tmp_path / "both").mkdir()
    for name in ("data_folds.pkl", "sarcasm_data.json"):
        (tmp_path / "both" / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"could be ur-funny or mustard. Choose one: `--format ur-funny`"):
        detect(tmp_path / "both")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none of the known layouts"):
        detect(tmp_path / "empty")
    (tmp_path / "x.csv").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        detect(tmp_path / "x.csv")
    (tmp_path / "x.csd").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match="give the folder"):
        detect(tmp_path / "x.csd")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")
    with pytest.raises(DataError, match="Parameter `format`"):
        read(path, "parquet")


@pytest.mark.parametrize("format", ["auto", "mmsa", "mag", "hkt"])
def test_a_malicious_pickle_is_refused_by_every_reader(tmp_path: Path, format: str) -> None:
    path = tmp_path / "mosi.pkl"
    path.write_bytes(pickle.dumps({"train": Touch(tmp_path / "created")}))
    with pytest.raises(UnsafePickleError, match=r"mosi\.pkl is refused: it refers to `posix\.system`"):
        import_dataset(path, tmp_path / "out", format=format)
    assert not (tmp_path / "created").exists()
    assert not (tmp_path / "out").exists()


def test_a_malicious_pickle_in_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ur"
    folder.mkdir()
    for name in ("data_folds.pkl", "language_sdk.pkl", "humor_label_sdk.pkl"):
        (folder / name).write_bytes(pickle.dumps(Touch(tmp_path / "created")))
    with pytest.raises(UnsafePickleError, match=r"data_folds\.pkl"):
        import_dataset(folder, tmp_path / "out")
    assert not (tmp_path / "created").exists()


def test_the_source_is_remembered(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "x.npz"
    np.savez(path, label=np.array([0.5, 1.5]), audio=np.ones((2, 3)))
    import_dataset(path, tmp_path / "out", split="train")
    manifest = load(tmp_path / "out").manifest
    assert manifest.source == "x.npz"
    assert manifest.extra["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "published" not in manifest.extra
    with pytest.raises(DataError, match="is a dataset already"):
        detect(tmp_path / "out")
    with pytest.raises(DataError, match="out"):
        import_dataset(path, tmp_path / "out", split="train")
    assert len(import_dataset(path, tmp_path / "out", split="train", overwrite=True)) == 2


@pytest.mark.parametrize(
    ("segment", "video"),
    [
        ("03bSnISJMiM$_$11", "03bSnISJMiM"),
        ("03bSnISJMiM[11]", "03bSnISJMiM"),
        ("03b_nIS_iM_11", "03b_nIS_iM"),
        ("video_0001/0003", "video_0001"),
        ("video_0001$_$0003", "video_0001"),
        ("plain", None),
    ],
)
def test_the_video_of_a_segment(segment: str, video: str | None) -> None:
    assert segment_video(segment) == video


def test_padding_is_what_is_zero_to_the_end() -> None:
    padded = np.zeros((4, 3, 2))
    padded[0, 0, 1] = 1
    padded[1, 2, 0] = 1
    padded[2, 1, 0] = np.nan
    np.testing.assert_array_equal(content_lengths(padded), [1, 3, 2, 0])

"""NumPy archives and CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.data import DataError
from equipoise.data.importers import detect, import_dataset, read


def arrays(**changes: Any) -> dict[str, Any]:
    audio = np.zeros((4, 5, 2), dtype=np.float32)
    for i in range(4):
        audio[i, : i + 1] = i + 1
    found = {
        "id": np.array(["a", "b", "c", "d"]),
        "label": np.array([0.5, -1, 2, 3], dtype=np.float32),
        "split": np.array(["train", "train", "dev", "test"]),
        "text": np.array(["one", "two", "three", "four"]),
        "group": np.array(["v", "v", "w", "x"]),
        "speaker": np.array(["s", "s", "t", "u"]),
        "audio": audio,
        "vision": np.arange(12, dtype=np.float64).reshape(4, 3),
        **changes,
    }
    return {key: value for key, value in found.items() if value is not None}


def saved(path: Path, **content: Any) -> Path:
    np.savez(path, **content)
    return path


def test_npz_comes_out_as_written(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.npz", **arrays())
    assert detect(path) == "npz"
    dataset = import_dataset(path, tmp_path / "out", scale="mosi")
    assert dataset.modalities == ("audio", "vision")
    assert dataset.ids == list("abcd")
    assert dataset.texts == ["one", "two", "three", "four"]
    assert dataset.groups == ["v", "v", "w", "x"]
    assert dataset.speakers == ["s", "s", "t", "u"]
    assert dataset.columns["split"] == ["train", "train", "valid", "test"]
    np.testing.assert_array_equal(dataset.labels, np.array([0.5, -1, 2, 3], dtype=np.float32))
    np.testing.assert_array_equal(dataset.sequence("audio", 2), np.full((3, 2), 3.0))
    np.testing.assert_array_equal(dataset.sequence("vision", 1), [[3, 4, 5]])
    assert dataset.manifest.labels.range == (-3.0, 3.0)


def test_npz_lengths_count_even_where_frames_are_zero(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", **arrays(audio_lengths=np.array([5, 4, 3, 4])))
    dataset = import_dataset(path, tmp_path / "out")
    assert [len(dataset.sequence("audio", i)) for i in range(4)] == [5, 4, 3, 4]


def test_npz_keys_and_split_values_can_be_mapped(tmp_path: Path) -> None:
    content = {
        "mfcc": np.ones((3, 4, 2)),
        "lips": np.arange(3 * 2 * 2 * 2).reshape(3, 2, 2, 2).astype(np.uint8),
        "y": np.array([7, 9, 7]),
        "rep": np.array([1, 1, 3]),
        "notes": np.array(["p", "q", "r"]),
    }
    path = saved(tmp_path / "x.npz", **content)
    names = {"audio": "mfcc", "vision": "lips", "label": "y", "split": "rep"}
    dataset = import_dataset(path, tmp_path / "out", map=names, split_values={"1": "train", "3": "test"})
    assert dataset.manifest.task == "classification"
    assert dataset.manifest.labels.classes == ("7", "9")
    np.testing.assert_array_equal(dataset.labels, [0, 1, 0])
    assert dataset.columns["split"] == ["train", "train", "test"]
    assert dataset.ids == ["x_0", "x_1", "x_2"]
    np.testing.assert_array_equal(dataset.sequence("vision", 1), [[8, 9, 10, 11], [12, 13, 14, 15]])
    assert read(path, map=names, split_values={"1": "train", "3": "test"}).assumptions == ("not read: notes",)


def test_npz_keys_that_name_a_split_are_joined(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    for k, (split, n) in enumerate((("train", 2), ("valid", 1), ("test", 3))):
        content |= {f"audio_{split}": np.full((n, 2, 4), k + 1.0), f"y_{split}": np.full((n, 5), float(k))}
    dataset = import_dataset(saved(tmp_path / "pom.npz", **content), tmp_path / "out", map={"label": "y"})
    assert dataset.manifest.splits == {"train": 2, "valid": 1, "test": 3}
    assert dataset.labels.shape == (6, 5)
    np.testing.assert_array_equal(dataset.labels[:, 0], [0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(dataset.sequence("audio", 2), np.full((2, 4), 2.0))
    del content["y_test"]
    with pytest.raises(DataError, match="split test has audio_test but not the other keys"):
        import_dataset(saved(tmp_path / "pom.npz", **content), tmp_path / "two", map={"label": "y"})


def test_real_pom_and_mosi_come_out_whole(tmp_path: Path, shared_data: Path) -> None:
    pom = import_dataset(shared_data / "pom.npz", tmp_path / "pom", map={"vision": "video", "label": "y"})
    assert pom.manifest.splits == {"train": 600, "valid": 100, "test": 203}
    raw = np.load(shared_data / "pom.npz")
    np.testing.assert_array_equal(pom.labels[700:], raw["y_test"])
    np.testing.assert_array_equal(pom.sequence("audio", 600), raw["audio_valid"][0])
    mosi = import_dataset(
        shared_data / "mosi_utt.npz",
        tmp_path / "mosi",
        map={"audio": "audio73", "split": "split_std", "group": "video_id"},
        scale="mosi",
    )
    assert mosi.manifest.splits == {"train": 1284, "valid": 229, "test": 686}
    assert mosi.texts is not None
    assert mosi.texts[0] == "ANYHOW IT WAS REALLY GOOD"
    assert mosi.labels[0] == np.float32(2.4)


@pytest.mark.parametrize(
    ("changes", "options", "line"),
    [
        ({"label": None}, {}, r"x\.npz has no key `label`. Name one: `--map label=KEY`"),
        ({"split": None}, {}, r"x\.npz has no key `split`"),
        ({"split": np.array(["train", "train", "foo", "test"])}, {}, r"unknown split 'foo'"),
        ({"audio": np.zeros((3, 5, 2))}, {}, r"lengths disagree: label 4, audio 3"),
        ({"id": np.array(["a", "b", "c"])}, {}, r"lengths disagree: label 4, split 4, id 3"),
        ({"id": np.array(["a", "b", "a", "d"])}, {}, r"^x\.npz: .*'a' in rows 0, 2"),
        ({"split": np.array(["test"] * 4)}, {}, r"^x\.npz: .*split train"),
        ({"label": np.array([0, 9.5, 0, 0])}, {"scale": "mosi"}, r"^x\.npz: .*\[-3, 3\].*9\.5"),
        ({"label": np.array([0, 2, 1, 0])}, {"classes": ["no", "yes"]}, r"label 2 is outside the 2 classes"),
        ({"label": np.array(["p", "q", "p", "r"])}, {"classes": ["p", "q"]}, r"label 'r' is none of the classes p, q"),
        ({"label": np.array([0.5, 1, 0, 0])}, {"task": "classification"}, r"labels are not whole numbers"),
        ({"audio_lengths": np.array([5, 6, 1, 1])}, {}, r"sample 1 is said to have 6 frames, the array has 5"),
        ({"vision_lengths": np.array([1, 1, 1, 1])}, {}, r"`vision_lengths` does not apply"),
        ({"audio": None, "vision": None, "text": None}, {}, r"has no modality"),
        ({}, {"map": {"audio": "mfcc"}}, r"x\.npz has no key `mfcc` for `audio`. It has: id, label"),
        ({}, {"split": "train"}, r"x\.npz says the split of each row itself. Leave out `--split`"),
        ({}, {"map": {"audio": "group"}}, r"`group` should be \[N, T, d\] or \[N, d\] numbers"),
        ({"audio": np.array([{}] * 4)}, {}, r"x\.npz is not a plain \.npz file"),
        ({}, {"context": "drop"}, r"Option `context` does not apply to format npz. It takes: classes, label_range"),
    ],
)
def test_a_broken_npz_is_one_clear_line(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], line: str
) -> None:
    path = saved(tmp_path / "x.npz", **arrays(**changes))
    with pytest.raises(DataError, match=line) as caught:
        import_dataset(path, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


CSV = """id,split,label,text,audio,vision,label_audio
a,train,0.5,"good, very good",f/a.npy,f/a.npz,0.25
b,val,-1,bad,f/b.npy,,-0.5
c,test,2,fine,f/b.npy,f/a.npz,1
"""


def table(tmp_path: Path, text: str = CSV) -> Path:
    folder = tmp_path / "csv"
    (folder / "f").mkdir(parents=True, exist_ok=True)
    np.save(folder / "f" / "a.npy", np.full((2, 3), 1.0))
    np.save(folder / "f" / "b.npy", np.full((4, 3), 2.0))
    np.savez(folder / "f" / "a.npz", features=np.arange(4.0), other=np.zeros(2))
    (folder / "own.csv").write_text(text, encoding="utf-8")
    return folder / "own.csv"


def test_csv_comes_out_as_written(tmp_path: Path) -> None:
    path = table(tmp_path)
    assert detect(path) == "csv"
    dataset = import_dataset(path, tmp_path / "out", scale="mosi")
    assert dataset.texts == ["good, very good", "bad", "fine"]
    assert dataset.columns["split"] == ["train", "valid", "test"]
    np.testing.assert_array_equal(dataset.labels, np.array([0.5, -1, 2], dtype=np.float32))
    np.testing.assert_array_equal(dataset.unimodal_labels("audio"), np.array([0.25, -0.5, 1], dtype=np.float32))
    np.testing.assert_array_equal(dataset.sequence("audio", 1), np.full((4, 3), 2.0))
    np.testing.assert_array_equal(dataset.sequence("vision", 2), [[0, 1, 2, 3]])
    assert dataset.sequence("vision", 1).shape == (0, 4)


def test_csv_labels_may_be_classes_and_columns_renamed(tmp_path: Path) -> None:
    text = "id,fold,emotion,text\na,1,sad,x\nb,2,happy,y\nc,1,sad,z\n"
    path = table(tmp_path, text)
    names = {"split": "fold", "label": "emotion"}
    dataset = import_dataset(path, tmp_path / "out", map=names, split_values={"1": "train", "2": "test"})
    assert dataset.manifest.labels.classes == ("happy", "sad")
    np.testing.assert_array_equal(dataset.labels, [1, 0, 1])
    ordered = import_dataset(
        path, tmp_path / "two", map=names, split_values={"1": "train", "2": "test"}, classes=["sad", "happy"]
    )
    np.testing.assert_array_equal(ordered.labels, [0, 1, 0])


def test_csv_reads_a_column_in_the_place_of_another_of_that_name(tmp_path: Path) -> None:
    path = table(tmp_path, "id,split,valence,label,text\na,train,0.5,7.5,x\nb,test,-1.5,8.5,y\n")
    dataset = import_dataset(path, tmp_path / "out", map={"label": "valence"})
    assert dataset.labels.tolist() == [0.5, -1.5]


def test_csv_of_a_spreadsheet_with_unicode_and_spaces(tmp_path: Path) -> None:
    path = table(tmp_path, CSV)
    (path.parent / "f" / "a.npy").rename(path.parent / "f" / "ä 1.npy")
    path.write_text(CSV.replace("f/a.npy", "f/ä 1.npy").replace("a,train", "clip ü 1,train"), encoding="utf-8-sig")
    dataset = import_dataset(path, tmp_path / "my dätä")
    assert dataset.ids == ["clip ü 1", "b", "c"]
    np.testing.assert_array_equal(dataset.sequence("audio", 0), np.ones((2, 3)))
    with pytest.raises(DataError, match="says the split of each row itself"):
        import_dataset(path, tmp_path / "other", split="train")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("f/b.npy", "f/c.npy", r"own\.csv: b: audio: no such file .*c\.npy"),
        ("label,text", "score,text", r"own\.csv has no column `label`. It has: id, split, score"),
        ("id,split", "name,split", r"own\.csv has no column `id`"),
        ("id,split", "id,part", r"own\.csv has no column `split`"),
        ("val,", "validation,", r"row 3: unknown split 'validation'"),
        ("b,val", "a,val", r"own\.csv: .*'a' in rows 0, 1"),
        ("-1,bad", "-7,bad", r"own\.csv: .*\[-3, 3\].*-7"),
        ("-1,bad", "bad,bad", r"label should hold numbers"),
        ("-1,bad", "-1", r"row 3 has 6 cells, the header 7"),
        ("id,split", "id,id", r"empty or repeated name"),
    ],
)
def test_a_broken_csv_is_one_clear_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    path = table(tmp_path, CSV.replace(old, new, 1))
    with pytest.raises(DataError, match=line) as caught:
        import_dataset(path, tmp_path / "out", scale="mosi")
    assert "\n" not in str(caught.value)


def test_csv_without_rows_or_content_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own\.csv has no rows"):
        import_dataset(table(tmp_path, CSV.splitlines()[0] + "\n"), tmp_path / "out")
    with pytest.raises(DataError, match=r"own\.csv is empty"):
        import_dataset(table(tmp_path, ""), tmp_path / "out")
    with pytest.raises(DataError, match=r"column `audio` is empty"):
        import_dataset(table(tmp_path, "id,split,label,audio\na,train,1.5,\n"), tmp_path / "out")
    with pytest.raises(DataError, match=r"neither text nor a modality"):
        import_dataset(table(tmp_path, "id,split,label\na,train,1.5\n"), tmp_path / "out")

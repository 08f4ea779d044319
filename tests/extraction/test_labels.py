"""The label file: every column ends where it belongs, and every mistake in it is one line that names the row."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from equipoise.data.errors import DataError
from equipoise.extraction.labels import ClipLabels, read_labels


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def read(folder: Path, text: str, **options: object) -> ClipLabels:
    return read_labels(table(folder, text), folder, **options)  # type: ignore[arg-type]


def test_every_column_ends_where_it_belongs(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "id,file,label,split,text,start,end,group,speaker,label_audio\n"
        'a,one.mp4,0.5,train," so\tit  begins ",1.5,4,film,Ann,-1\n'
        "b,deep/two.wav,-2,dev,,,,film,Ben,2\n"
        "c,one.mp4,1,test,over,4,,film,Ann,0.25\n",
        label_range=(-3, 3),
    )
    assert found.task == "regression"
    assert list(found.label_range or ()) == [-3, 3]
    np.testing.assert_array_equal(found.labels, np.array([0.5, -2, 1], np.float32))
    np.testing.assert_array_equal(found.unimodal["audio"], np.array([-1, 2, 0.25], np.float32))
    assert [clip.id for clip in found.clips] == ["a", "b", "c"]
    assert [clip.path for clip in found.clips] == [tmp_path / f for f in ("one.mp4", "deep/two.wav", "one.mp4")]
    assert [(clip.start, clip.end) for clip in found.clips] == [(1.5, 4.0), (0.0, None), (4.0, None)]
    assert [clip.text for clip in found.clips] == ["so it begins", "", "over"]
    assert found.splits == ["train", "valid", "test"]
    assert found.groups == ["film"] * 3
    assert found.speakers == ["Ann", "Ben", "Ann"]


def test_two_columns_are_enough(tmp_path: Path) -> None:
    found = read(tmp_path, "file,label\nsub/a.b.mp4,happy\nc.wav,sad\n")
    assert (found.task, found.classes, found.labels.tolist()) == ("classification", ["happy", "sad"], [0, 1])
    assert [clip.id for clip in found.clips] == ["sub/a.b", "c"]
    assert (found.splits, found.groups, found.speakers) == (None, None, None)
    assert found.assumptions == ("the labels are classes",)


def test_segments_of_one_file_are_numbered_and_belong_together(tmp_path: Path) -> None:
    found = read(tmp_path, "file,label,start,end\na.mp4,0.1,0,2\nb.mp4,0.2,,\na.mp4,0.3,2,5\n")
    assert [clip.id for clip in found.clips] == ["a[0]", "b", "a[1]"]
    assert found.groups == ["a", "b", "a"]


def test_columns_are_renamed_and_values_translated(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "video\tscore\tmode\nx.mp4\t3\t1\ny.mp4\t-1\t3\n".replace("\t", ","),
        names={"file": "video", "label": "score", "split": "mode"},
        split_values={"1": "train", "3": "test"},
        scale="mosi",
    )
    assert found.splits == ["train", "test"]
    assert (found.scale, found.task) == ("mosi", "regression")
    tabbed = read_labels(table(tmp_path, "file\tlabel\nx.mp4\t2\n", "l.tsv"), tmp_path, split="val", task="regression")
    assert (tabbed.splits, tabbed.task, tabbed.assumptions) == (["valid"], "regression", ())


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_either_unicode_form(form: str, tmp_path: Path) -> None:
    name = "Grüße – 日本.mp4"
    (tmp_path / unicodedata.normalize(form, name)).touch()  # type: ignore[arg-type]
    for written in ("NFC", "NFD"):
        found = read(tmp_path, f"file,label\n{unicodedata.normalize(written, name)},1\n")
        assert found.clips[0].path.is_file()


def test_a_missing_clip_is_known_by_its_path(tmp_path: Path) -> None:
    assert read(tmp_path, "file,label\ngone.mp4,1.0\n").clips[0].path == tmp_path / "gone.mp4"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("file,label\n", "has no rows"),
        ("file,text\na.mp4,x\n", "has no column `label`. It has: file, text."),
        ("file,label,mood\na.mp4,1,x\n", "column `mood` is not known. Rename it"),
        ("file,label\na.mp4,1\n,2\n", "row 3 names no file"),
        ("id,file,label\nx,a.mp4,1\n ,b.mp4,2\n", "row 3 has no id"),
        ("id,file,label\nx,a.mp4,1\ny,b.mp4,2\nx,c.mp4,1\n", "rows 2, 4 have one id, 'x'. Give each its own"),
        ("file,label\na.mp4,1\na.wav,2\n", "rows 2, 3 have one id, 'a'"),
        ("file,label,start\na.mp4,1,soon\n", "row 2: start should be seconds from the start of the file. Found 'soon'"),
        ("file,label,end\na.mp4,1,-2\n", "row 2: end should be seconds"),
        ("file,label,end\na.mp4,1,nan\n", "row 2: end should be seconds"),
        ("file,label,start,end\na.mp4,1,3,2\n", "row 2: the segment should end after 3 s, where it begins. Found 2."),
        ("file,label,start,end\na.mp4,1,2,2\n", "row 2: the segment should end after 2 s"),
        ("file,label,split\na.mp4,1,holdout\n", "row 2: unknown split 'holdout'"),
        ("file,label\na.mp4,1\nb.mp4,2,3\n", "row 3 has 3 cells, the header 2"),
    ],
)
def test_a_mistake_is_one_line(text: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, text)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no folder of clips"):
        read_labels(table(tmp_path, "file,label\na,1\n"), tmp_path / "gone")
    with pytest.raises(DataError, match="says the split of each row itself"):
        read(tmp_path, "file,label,split\na.mp4,1,train\n", split="test")

"""Clips to a dataset: every value in its row, every failure in the report, nothing done twice."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.extraction.extractors import Brightness
from tests.features.clips import noise, square, tone, write_clip

from equipoise.data import DataError
from equipoise.experiments.store import Store
from equipoise.extraction.choose import choose_recipe
from equipoise.extraction.dataset import Extraction, extract_dataset
from equipoise.extraction.labels import read_labels
from equipoise.extraction.recipe import Recipe
from equipoise.extraction.times import frame_times
from equipoise.features.clip import open_clip
from equipoise.features.log_mel import LogMel

LABELS = """\
file,label,start,end,split,text,speaker,label_audio
both.mp4,0.5,0,1,train,so it begins,Ann,0.25
both.mp4,-1,1,,train,,Ann,-1
heard.wav,2,,,valid,only heard,Ben,2
grüße 日本.mp4,1,,,test,,Cid,1
words.mp4,-2,,,test,only said,Cid,0
gone.mp4,1,,,train,never,Ann,0
text.mp4,1,,,train,never,Ann,0
mute.mp4,1,,,train,,Ann,0
"""


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    pictures = [square(number) for number in range(50)]
    write_clip(folder / "both.mp4", audio=tone(2.0), pictures=pictures)
    write_clip(folder / "heard.wav", audio=noise(1.0), audio_codec="pcm_s16le")
    write_clip(folder / "grüße 日本.mp4", pictures=pictures[:30])
    (folder / "grüße 日本.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nvon nebenan\n", encoding="utf-8")
    (folder / "text.mp4").write_text("no clip at all\n" * 99)
    for name, count in (("words.mp4", 10), ("mute.mp4", 20)):  # nothing to see, nothing to hear
        write_clip(folder / name, pictures=[np.zeros((64, 64, 3), np.uint8)] * count)
    return folder


@pytest.fixture(name="recipe")
def _recipe() -> Recipe:
    return choose_recipe(audio="log-mel", vision="brightness", arguments={"audio": {"rate": 50}})


def extract(folder: Path, out: Path, recipe: Recipe, text: str, **options: Any) -> Extraction:
    table = out.with_suffix(".csv")
    table.write_text(text, encoding="utf-8")
    return extract_dataset(read_labels(table, folder), out, recipe, **options)


def report(found: Extraction) -> dict[str, dict[str, str]]:
    with found.report.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def results(store: Path) -> dict[str, int]:
    """When each result was written."""
    return {path.name: path.stat().st_mtime_ns for path in (store / "done").iterdir()}


def test_every_value_ends_in_its_row(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    found = extract(folder, tmp_path / "data", recipe, LABELS, jobs=2)
    data = found.dataset
    assert data.ids == ["both[0]", "both[1]", "heard", "grüße 日本", "words"]
    np.testing.assert_array_equal(data.labels, np.array([0.5, -1, 2, 1, -2], np.float32))
    np.testing.assert_array_equal(data.unimodal_labels("audio"), np.array([0.25, -1, 2, 1, 0], np.float32))
    assert data.texts == ["so it begins", "", "only heard", "von nebenan", "only said"]
    assert data.columns["split"] == ["train", "train", "valid", "test", "test"]
    assert data.groups == ["both", "both", "heard", "grüße 日本", "words"]
    assert data.speakers == ["Ann", "Ann", "Ben", "Cid", "Cid"]
    rows = [("both.mp4", 0.0, 1.0), ("both.mp4", 1.0, None), ("heard.wav", 0.0, None), ("grüße 日本.mp4", 0.0, None)]
    for row, (name, start, end) in enumerate(rows):
        clip = open_clip(folder / name, start=start, end=end)
        for modality, extractor in (("audio", LogMel(rate=50)), ("vision", Brightness())):
            stream = extractor.extract(clip)
            np.testing.assert_array_equal(data.sequence(modality, row), stream.values)
            np.testing.assert_allclose(frame_times(data, modality, row), stream.times, atol=1e-4)
    assert data.manifest.modalities["audio"].missing == 2
    assert data.manifest.modalities["vision"].missing == 2
    assert data.verify() == []


def test_the_dataset_says_how_it_was_made(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    found = extract(folder, tmp_path / "data", recipe, LABELS, name="talks")
    manifest = found.dataset.manifest
    assert (manifest.name, manifest.source) == ("talks", "clips of data.csv")
    assert Recipe(**manifest.extra["extraction"]) == recipe
    assert manifest.extra["columns"]["vision"] == ["brightness", "number"]
    assert manifest.extra["rates"] == {"audio": [50.0], "vision": [5.0]}
    assert manifest.extra["clips"] == {"listed": 8, "used": 5}
    assert manifest.modalities["vision"].extractor == "brightness (rate 5.0)"
    assert found.notes == (
        "audio is missing in 2 of 5 clips",
        "vision is missing in 2 of 5 clips",
        "1 of 5 clips have no transcript",
    )


def test_the_report_tells_of_every_clip(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    rows = report(extract(folder, tmp_path / "data", recipe, LABELS))
    assert {id: row["status"] for id, row in rows.items()} == {
        **dict.fromkeys(("both[0]", "both[1]", "heard", "grüße 日本", "words"), "used"),
        "gone": "failed",
        "text": "failed",
        "mute": "left out",
    }
    assert rows["gone"]["reason"].endswith("gone.mp4: no such file.")
    assert "text.mp4" in rows["text"]["reason"]
    assert rows["mute"]["reason"] == "audio: no audio track; vision: nothing to see; no transcript"
    assert rows["heard"]["vision_absent"] == "no video track"
    assert (rows["heard"]["audio_frames"], rows["heard"]["seconds"]) == ("49", "1.000")
    assert (rows["both[1]"]["start"], rows["both[1]"]["end"], rows["both[1]"]["text"]) == ("1", "", "")
    assert [rows[id]["text"] for id in ("both[0]", "grüße 日本")] == ["labels", "sidecar"]
    assert rows["gone"]["split"] == "train"


def test_nothing_is_extracted_twice(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = extract(folder, tmp_path / "one", recipe, LABELS, cache=cache)
    before = results(cache)
    planned = []

    def watch(waiting: Any, known: int) -> Any:
        planned.append((len(waiting), known))
        return nullcontext(lambda work, what, seconds: None)

    (folder / "copy.wav").write_bytes((folder / "heard.wav").read_bytes())
    changed = LABELS.replace("only heard", "heard otherwise")
    changed = changed.replace("0.5,0,1", "3,0,1") + "copy.wav,1,,,test,a copy,Cid,0\n"
    second = extract(folder, tmp_path / "two", recipe, changed, cache=cache, watch=watch)
    (folder / "copy.wav").unlink()
    assert results(cache) == before  # other labels and texts, and a copy under another name
    assert planned == [(0, 7)]
    assert second.dataset.labels[0] == 3
    assert second.dataset.texts is not None
    assert second.dataset.texts[2] == "heard otherwise"
    np.testing.assert_array_equal(second.dataset.sequence("audio", 5), first.dataset.sequence("audio", 2))
    other = choose_recipe(audio="log-mel", vision="brightness", arguments={"audio": {"rate": 25}})
    extract(folder, tmp_path / "three", other, LABELS, cache=cache)
    assert len(results(cache)) == 2 * len(before)


def test_a_changed_clip_is_extracted_again(tmp_path: Path) -> None:
    recipe = choose_recipe(audio="log-mel", vision=None)
    clip, text = tmp_path / "a.wav", "file,label,split\na.wav,1.0,train\n"
    write_clip(clip, audio=tone(1.0), audio_codec="pcm_s16le")
    one = extract(tmp_path, tmp_path / "one", recipe, text, cache=tmp_path / "cache").dataset.sequence("audio", 0)
    write_clip(clip, audio=tone(1.0, hertz=880), audio_codec="pcm_s16le")
    two = extract(tmp_path, tmp_path / "two", recipe, text, cache=tmp_path / "cache").dataset.sequence("audio", 0)
    assert not np.array_equal(one, two)
    (tmp_path / "a.txt").write_text("now with words")
    three = extract(tmp_path, tmp_path / "three", recipe, text, cache=tmp_path / "cache").dataset
    assert three.texts == ["now with words"]


def test_equal_clips_give_equal_bytes_however_many_processes(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    one = extract(folder, tmp_path / "data", recipe, LABELS, jobs=1, cache=tmp_path / "c1").dataset.manifest
    two = extract(folder, tmp_path / "data", recipe, LABELS, jobs=3, cache=tmp_path / "c2", overwrite=True)
    assert two.dataset.manifest == one


def test_a_decoder_that_crashes_or_hangs_costs_its_clip_alone(folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a", "crash", "b", "hang", "c"):
        (clips / f"{name}.mp4").write_bytes((folder / "both.mp4").read_bytes() + name.encode())
    text = "file,label,split\n" + "".join(f"{each}.mp4,1.5,train\n" for each in ("a", "crash", "b", "hang", "c"))
    recipe = choose_recipe(audio=None, vision="brightness")
    found = extract(clips, tmp_path / "data", recipe, text, jobs=2, limit_seconds=2)
    assert found.dataset.ids == ["a", "b", "c"]
    rows = report(found)
    assert "SIGKILL" in rows["crash"]["reason"]
    assert "2 s" in rows["hang"]["reason"]


def test_a_full_disk_is_no_property_of_a_clip(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full.mp4").write_bytes((folder / "both.mp4").read_bytes())
    (tmp_path / "text.mp4").write_text("no clip")
    (tmp_path / "a.mp4").write_bytes((folder / "both.mp4").read_bytes() + b"a")
    text = "file,label,split\n" + "".join(f"{each}.mp4,1.5,train\n" for each in ("full", "text", "a"))
    recipe, begun = choose_recipe(audio=None, vision="brightness"), []

    def watch(waiting: Any, known: int) -> Any:
        begun.append(sorted(Path(work.path).stem for work in waiting))
        return nullcontext(lambda work, what, seconds: None)

    for retry in (False, False, True):
        extract(tmp_path, tmp_path / "d", recipe, text, watch=watch, overwrite=True, retry_failed=retry)
    assert begun == [["a", "full", "text"], ["full"], ["full", "text"]]


def test_splits_keep_speakers_apart_where_the_labels_have_none(folder: Path, tmp_path: Path) -> None:
    text = "file,label,start,end,speaker\n" + "".join(
        f"both.mp4,{row % 3 - 1},{row / 10},{row / 10 + 0.5},{'abcde'[row % 5]}\n" for row in range(10)
    )
    found = extract(folder, tmp_path / "data", choose_recipe(audio=None, vision="brightness"), text, seed=3)
    data = found.dataset
    assert data.speakers is not None
    assert set(data.splits) == {"train", "valid", "test"}
    for speaker in "abcde":
        assert (
            len({split for split, who in zip(data.columns["split"], data.speakers, strict=True) if who == speaker}) == 1
        )
    with pytest.raises(DataError, match=r"records no groups|2 splits|3 splits"):
        extract(folder, tmp_path / "other", choose_recipe(audio=None, vision="brightness"), text, split_by="group")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("file,label,split\nboth.mp4,1.5,test\n", "no row is in the split train"),
        ("file,label,split\ngone.mp4,1.5,train\n", "none of its 1 files can be read"),
        ("file,label,split\ntext.mp4,1.5,train\n", "no clip can be used. 1 failed, such as text.mp4"),
        (
            "file,label,split\ntext.mp4,1.5,train\nboth.mp4,1.0,test\n",
            "no clip of the split train can be used. 1 failed, such as text.mp4",
        ),
        ("file,label\nboth.mp4,1.5\n", "need at least 3"),
    ],
)
def test_what_can_be_no_dataset_is_one_line(folder: Path, text: str, part: str, tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(DataError) as error:
        extract(folder, tmp_path / "data", recipe, text)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_what_is_refused_in_the_end_is_refused_before_the_work(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"exists\. Give another path"):
        extract(folder, tmp_path / "data", recipe, LABELS)
    (tmp_path / "l.csv").write_text("file,label,split\nboth.mp4,9.5,train\n")
    labels = read_labels(tmp_path / "l.csv", folder, scale="mosi")
    with pytest.raises(DataError, match=r"l.csv: .*\[-3, 3\]|l.csv: .*-3"):
        extract_dataset(labels, tmp_path / "new", recipe)
    assert not (tmp_path / "new.clips").exists()


def test_a_modality_that_no_clip_has_is_left_out(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    found = extract(folder, tmp_path / "data", recipe, "file,label,split\nheard.wav,1.5,train\n")
    assert found.dataset.modalities == ("audio",)
    assert found.notes == ("vision is left out: no clip has any (no video track)", "no clip has a transcript")
    assert found.dataset.texts is None


def test_words_keep_their_times(folder: Path, tmp_path: Path) -> None:
    words = [{"word": "one", "start": 0.2, "end": 0.8}, {"word": "two", "start": 0.8, "end": 1.5}]
    (folder / "both.json").write_text(json.dumps(words))
    recipe = choose_recipe(audio=None, vision="brightness", align="words")
    text = "file,label,split,start\nboth.mp4,1.5,train,\nboth.mp4,0.5,train,0.8\n"
    data = extract(folder, tmp_path / "data", recipe, text).dataset
    (folder / "both.json").unlink()
    assert data.texts == ["one two", "two"]
    times = data.array("word_times")
    np.testing.assert_allclose(times[0], [[0.2, 0.8], [0.8, 1.5]])
    np.testing.assert_allclose(times[1], [[0.0, 0.7], [np.nan, np.nan]])
    np.testing.assert_allclose(frame_times(data, "vision", 0), [0.5, 1.15])
    assert data.manifest.modalities["vision"].frames == 3


def test_a_store_without_its_features_is_told(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    text = "file,label,split\nboth.mp4,1.5,train\n"
    extract(folder, tmp_path / "data", recipe, text)
    store = Store(tmp_path / "data.clips")
    (store.run_dir(next(iter(store.ids()))) / "audio.npy").unlink()
    with pytest.raises(FileNotFoundError, match="should hold the features of a finished clip"):
        extract(folder, tmp_path / "data", recipe, text, overwrite=True)

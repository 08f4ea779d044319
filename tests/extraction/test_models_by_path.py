"""A recogniser whose model lies on the disk: a published model tells no place, and who has the weights can score."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.extraction import tuner
from tests.features.clips import tone, write_clip

from equipoise.cli.main import main
from equipoise.data import load
from equipoise.extraction import clip_features
from equipoise.extraction.choose import choose_recipe
from equipoise.extraction.clip_features import extract_clip
from equipoise.extraction.recipe import Recipe
from equipoise.features.local_models import MODELS
from equipoise.features.speech import RECOGNISERS
from equipoise.training.pretrained import from_pretrained

SAID = ("low", "high", "high", "low", "high", "low", "low", "high")
HERTZ = {"low": 300.0, "high": 2000.0}


@dataclass(frozen=True)
class Author:
    """What somebody has, and in ``data`` and ``model`` what they give away."""

    folder: Path
    recogniser: Path
    data: Path
    model: Path


@pytest.fixture(autouse=True)
def _tuner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODELS, raising=False)
    monkeypatch.setitem(sys.modules, "equipoise.features.tuner", tuner)
    monkeypatch.setitem(RECOGNISERS, "tuner", ("tuner", "Tuner"))


def save_model(folder: Path, words: str = "low high") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(words)
    return folder


def say(path: Path, word: str, seconds: float = 1.0) -> Path:
    return write_clip(path, audio=tone(seconds, hertz=HERTZ[word]), audio_codec="pcm_s16le")


def extract(folder: Path, recogniser: Path, out: Path, *flags: Any) -> int:
    given = [folder / "clips", "--labels", folder / "labels.csv", "--out", out, "--vision", "none", "--align", "words"]
    return main([*map(str, ["extract", *given, "--audio.bins", 4, "--speech", f"tuner:{recogniser}", *flags])])


def predict(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["predict", *map(str, argv), "--json"])
    found = capsys.readouterr()
    return code, found.out, found.err


def heard(said: str) -> list[str]:
    return [clip["transcript"]["text"] for clip in json.loads(said)["clips"]]


@pytest.fixture(name="author")
def _author(tmp_path: Path) -> Author:
    """Two processes extract; the model reads sound in steps of words, so the recogniser belongs to it."""
    folder = tmp_path / "author"
    recogniser = save_model(folder / "private" / "two-words")
    (folder / "clips").mkdir()
    rows = ["file,label,split"]
    for i, word in enumerate(SAID):
        say(folder / "clips" / f"{i}.wav", word, 0.5 + i / 10)
        rows.append(f"{i}.wav,{i}.5,{('train', 'train', 'valid', 'test')[i % 4]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    assert extract(folder, recogniser, folder / "data", "--jobs", 2) == 0
    small = ["--model", "LateFusion", "--model.hidden", "4", "--model.encoder", "mean", "--train.epochs", "1"]
    assert main(["train", "--data", str(folder / "data"), "--out", str(folder / "run"), *small]) == 0
    assert main(["export", str(folder / "run"), "--to", str(folder / "model")]) == 0
    return Author(folder, recogniser, folder / "data", folder / "model")


def test_what_is_given_away_names_the_model_and_no_place(author: Author, tmp_path: Path) -> None:
    assert load(author.data).texts == list(SAID)
    for file in (author.data / "manifest.json", author.model / "config.json", author.model / "README.md"):
        text = file.read_text(encoding="utf-8")
        assert "private" not in text
        assert str(author.recogniser) not in text
    _, info = from_pretrained(author.model)
    assert info.extraction is not None
    assert info.extraction["speech"]["model"] == "two-words"
    # The same weights elsewhere are the same work: nothing is extracted again.
    moved = shutil.copytree(author.recogniser, tmp_path / "moved" / "two-words")
    cache = author.folder / "data.clips"
    before = sorted(path.name for path in (cache / "done").iterdir())
    assert len(before) == len(SAID)
    assert extract(author.folder, moved, tmp_path / "again", "--cache", cache, "--jobs", 1) == 0
    assert sorted(path.name for path in (cache / "done").iterdir()) == before
    first, second = (Recipe(**load(path).manifest.extra["extraction"]) for path in (author.data, tmp_path / "again"))
    assert first.digest() == second.digest()
    # Other weights are other work.
    other = save_model(tmp_path / "other" / "two-words", "deep shrill")
    assert extract(author.folder, other, tmp_path / "other" / "data", "--cache", cache, "--jobs", 1) == 0
    assert len(list((cache / "done").iterdir())) == 2 * len(SAID)
    assert load(tmp_path / "other" / "data").texts == [{"low": "deep", "high": "shrill"}[word] for word in SAID]


def test_scoring_looks_for_the_weights_where_it_is_told(
    author: Author, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.move(author.recogniser, models / "two-words")
    clip, another = say(tmp_path / "new.wav", "high"), say(tmp_path / "another.wav", "low")
    code, said, err = predict(capsys, author.model, clip)
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert "`tuner` needs the model `two-words` with weights of SHA-256 " in err
    assert "`--models DIR`" in err
    for place in (models, models / "two-words"):
        code, said, _ = predict(capsys, author.model, clip, "--models", place)
        assert (code, heard(said)) == (0, ["high"])
    code, said, _ = predict(capsys, author.model, clip, another, "--models", models, "--jobs", 2)
    assert (code, heard(said)) == (0, ["high", "low"])
    # Words beside the clips: no recogniser is asked for.
    beside = another.with_suffix(".json")
    beside.write_text(json.dumps([{"word": "known", "start": 0.2, "end": 0.8}]))
    code, said, _ = predict(capsys, author.model, another)
    assert (code, heard(said)) == (0, ["known"])
    assert predict(capsys, author.model, clip, another)[0] == 2
    monkeypatch.setenv(MODELS, str(models))
    code, said, _ = predict(capsys, author.model, clip, another)
    assert (code, heard(said)) == (0, ["high", "known"])
    monkeypatch.delenv(MODELS)
    for kept in (clip_features._checked, clip_features._recogniser):
        kept.cache_clear()  # what this process has built already, it need not look for
    save_model(tmp_path / "wrong" / "two-words", "deep shrill")
    code, _, err = predict(capsys, author.model, clip, "--models", tmp_path / "wrong")
    assert code == 2
    assert "Found other weights of that name" in err


def test_a_clip_whose_words_are_known_needs_no_recogniser(tmp_path: Path) -> None:
    gone = save_model(tmp_path / "gone")
    recipe = choose_recipe(audio="log-mel", vision=None, speech=f"tuner:{gone}")
    shutil.rmtree(gone)
    clip = say(tmp_path / "new.wav", "high")
    known = extract_clip(clip, recipe, text="told").transcript
    assert known is not None
    assert known.text == "told"
    assert extract_clip(clip, recipe, text="").transcript is None
    assert extract_clip(clip, replace(recipe, text=False)).transcript is None
    with pytest.raises(FileNotFoundError, match="needs the model `gone`"):
        extract_clip(clip, recipe)
    clip.with_suffix(".txt").write_text("beside it")
    beside = extract_clip(clip, recipe).transcript
    assert beside is not None
    assert beside.text == "beside it"

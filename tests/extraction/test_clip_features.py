"""One clip: what the extractors give, what is said in it, and what it lacks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.extraction.extractors import Brightness
from tests.features.clips import noise, square, tone, write_clip

from equipoise.extraction.choose import choose_recipe
from equipoise.extraction.clip_features import check_recipe, extract_clip
from equipoise.extraction.recipe import Recipe
from equipoise.features.clip import MediaError, open_clip
from equipoise.features.log_mel import LogMel
from equipoise.features.transcript import Transcript, Word


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    pictures = [square(number) for number in range(50)]
    write_clip(folder / "both.mp4", audio=tone(2.0), pictures=pictures)
    write_clip(folder / "heard.wav", audio=noise(1.0), audio_codec="pcm_s16le")
    write_clip(folder / "seen.mp4", pictures=pictures)
    (folder / "broken.mp4").write_bytes((folder / "both.mp4").read_bytes()[:300])
    (folder / "seen.txt").write_text("what is\n seen")
    words = [
        {"word": w, "start": s, "end": e} for w, s, e in (("one", 0.2, 0.8), ("two", 0.8, 1.0), ("three", 1.2, 1.9))
    ]
    (folder / "both.json").write_text(json.dumps(words))
    return folder


@pytest.fixture(name="recipe")
def _recipe() -> Recipe:
    return choose_recipe(audio="log-mel", vision="brightness", arguments={"audio": {"rate": "50"}})


def test_a_clip_gets_what_its_extractors_give(folder: Path, recipe: Recipe) -> None:
    found = extract_clip(folder / "both.mp4", recipe, start=0.5, end=1.5, text=" Hello\nthere ")
    clip = open_clip(folder / "both.mp4", start=0.5, end=1.5)
    for name, extractor in (("audio", LogMel(rate=50)), ("vision", Brightness())):
        expected = extractor.extract(clip)
        np.testing.assert_array_equal(found.streams[name].values, expected.values)
        np.testing.assert_array_equal(found.streams[name].times, expected.times)
    assert found.streams["vision"].values.shape == (5, 2)
    assert found.transcript == Transcript("Hello there")
    assert (found.id, found.duration, found.facts) == ("both", 1.0, clip.facts)


def test_what_a_clip_lacks_says_why(folder: Path, recipe: Recipe) -> None:
    heard, seen = (extract_clip(folder / name, recipe) for name in ("heard.wav", "seen.mp4"))
    assert heard.streams["vision"].absent == "no video track"
    assert heard.streams["audio"].absent == ""
    assert seen.streams["audio"].absent
    assert len(seen.streams["vision"].values) == 10
    assert heard.transcript is None


def test_words_come_from_the_nearest_source(folder: Path, recipe: Recipe) -> None:
    clip = folder / "seen.mp4"
    assert extract_clip(clip, recipe).transcript == Transcript("what is seen", origin="sidecar")
    assert extract_clip(clip, recipe, sidecar=False).transcript is None
    assert extract_clip(clip, recipe, text="other").transcript == Transcript("other")
    assert extract_clip(clip, recipe, text=" ").transcript is None
    assert extract_clip(clip, replace(recipe, text=False), text="other").transcript is None
    given = Transcript("one", (Word("one", 0, 1),), "elsewhere", "aligned")
    assert extract_clip(clip, recipe, text=given).transcript == given


def test_a_broken_file_beside_a_clip_is_a_note(folder: Path, recipe: Recipe) -> None:
    beside = folder / "heard.json"
    beside.write_text("{")
    found = extract_clip(folder / "heard.wav", recipe)
    beside.unlink()
    assert found.transcript is None
    assert any("heard.json can't be read" in note for note in found.notes)


def test_aligned_features_are_means_over_words(folder: Path) -> None:
    recipe = choose_recipe(audio="log-mel", vision="brightness", align="words")
    found = extract_clip(folder / "both.mp4", recipe)
    whole = Brightness().extract(open_clip(folder / "both.mp4"))
    # Pictures at 0.1, 0.3, ...: the second word, from 0.8 to 1.0, holds that at 0.9 alone.
    expected = [whole.values[[1, 2, 3]].mean(axis=0), whole.values[4], whole.values[[6, 7, 8]].mean(axis=0)]
    np.testing.assert_allclose(found.streams["vision"].values, expected, rtol=1e-6)
    assert len(found.streams["audio"].values) == 3
    np.testing.assert_allclose(found.streams["audio"].times, [0.5, 0.9, 1.55])
    without = extract_clip(folder / "seen.mp4", recipe)
    assert without.streams["vision"].absent == "no spoken word with a time"


def test_a_file_without_a_clip_in_it_is_one_line(folder: Path, recipe: Recipe) -> None:
    for name in ("broken.mp4", "gone.mp4"):
        with pytest.raises(MediaError) as error:
            extract_clip(folder / name, recipe)
        assert "\n" not in str(error.value)


def test_a_recipe_is_followed_to_the_version_or_refused(recipe: Recipe) -> None:
    assert recipe.audio is not None
    assert recipe.decoder is not None
    check_recipe(Recipe(**json.loads(json.dumps(recipe.to_json()))))
    for changed, part in (
        (replace(recipe, audio={**recipe.audio, "version": 99}), "`version = 99` of log-mel"),
        (replace(recipe, decoder={**recipe.decoder, "libavcodec": "0.1"}), "`libavcodec = '0.1'` of the decoder"),
        (replace(recipe, vision={"name": "crystal-ball"}), "Unknown extractor `crystal-ball`"),
        (replace(recipe, speech={"name": "ear"}), "Unknown recogniser `ear`"),
    ):
        with pytest.raises(ValueError, match=part) as error:
            check_recipe(changed)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"audio": "log-mell"}, "Unknown audio extractor `log-mell`. Did you mean `log-mel`?"),
        ({"audio": "brightness"}, "Unknown audio extractor `brightness`"),
        ({"speech": "sphinks"}, "Unknown recogniser `sphinks`"),
        ({"arguments": {"audio": {"binz": 3}}}, "Unknown config key `audio.binz`. Did you mean `audio.bins`?"),
        ({"arguments": {"audio": {"bins": "many"}}}, "Config key `audio.bins`: input should be a valid integer"),
        ({"arguments": {"sound": {}}}, "Unknown part of an extraction `sound`"),
        ({"audio": None, "arguments": {"audio": {"bins": 3}}}, "Arguments of `audio` are given, but it is left out"),
        ({"audio": None, "vision": None, "text": False}, "nothing to extract"),
        ({"text": False, "align": "words"}, "words need transcripts"),
        ({"text": False, "speech": "pocketsphinx"}, "`speech` needs transcripts"),
    ],
)
def test_a_choice_that_can_not_be_is_one_line(given: dict[str, object], part: str) -> None:
    with pytest.raises(ValueError) as error:
        choose_recipe(**{"vision": None, **given})  # type: ignore[arg-type]
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_each_setting_counts_in_the_digest(recipe: Recipe) -> None:
    assert recipe.digest() == Recipe(**json.loads(json.dumps(recipe.to_json()))).digest()
    others = [
        replace(recipe, align="words"),
        replace(recipe, text=False),
        replace(recipe, decoder=None),
        choose_recipe(audio="log-mel", vision="brightness"),
    ]
    assert len({each.digest() for each in (recipe, *others)}) == 5

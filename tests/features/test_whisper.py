from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import Sound, square, tone, write_clip
from tests.features.whispers import HERTZ, SECONDS, write_whisper

from equipoise.features.clip import Clip, open_clip
from equipoise.features.speech import make_recogniser, speech_from_settings
from equipoise.features.whisper import Whisper


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("whisper"))


def clip_of(folder: Path, *words: str) -> Clip:
    """Half a second of silence, then 1.2 s of a word's tone, for each word."""
    pause = np.zeros(8000, np.float32)
    parts: list[Sound] = [part for word in words for part in (pause, tone(1.2, hertz=HERTZ[word]))]
    return open_clip(write_clip(folder / "said.wav", audio=np.concatenate(parts), audio_codec="pcm_s16le"))


def test_words_of_a_long_clip_are_heard_window_by_window(model: Path, tmp_path: Path) -> None:
    said = ["high", "low", "low", "high", "high", "low"]
    found = make_recogniser("whisper", path=str(model)).transcribe(clip_of(tmp_path, *said))
    assert found is not None
    assert (found.text, found.origin, found.timing) == (" ".join(said), "whisper", "recognised")
    assert found.words is not None
    assert [word.text for word in found.words] == said
    # A window of two seconds at most is cut in the pause after its word: each word lies around its own tone.
    for number, word in enumerate(found.words):
        middle = 1.7 * number + 1.1
        assert word.start < middle < word.end
        assert word.end - word.start < SECONDS - 2


def test_the_middle_of_a_clip_has_times_of_its_own(model: Path, tmp_path: Path) -> None:
    whole = clip_of(tmp_path, "high", "low", "high")
    found = Whisper(path=str(model)).transcribe(open_clip(whole.path, start=1.75, end=3.4))
    assert found is not None
    assert found.text == "low"
    assert found.words is not None
    assert 0 <= found.words[0].start < found.words[0].end <= 1.65


def test_a_model_without_heads_for_time_gives_text_alone(model: Path, tmp_path: Path) -> None:
    untimed = shutil.copytree(model, tmp_path / "untimed")
    config = json.loads((model / "generation_config.json").read_text())
    del config["alignment_heads"]
    (untimed / "generation_config.json").write_text(json.dumps(config))
    found = Whisper(path=str(untimed)).transcribe(clip_of(tmp_path, "low", "high"))
    assert found is not None
    assert (found.text, found.words, found.timing) == ("low high", None, "")


def test_nothing_said_is_no_transcript(model: Path, tmp_path: Path) -> None:
    recogniser = Whisper(path=str(model))
    silent = write_clip(tmp_path / "silent.wav", audio=np.zeros(8000, np.float32), audio_codec="pcm_s16le")
    assert recogniser.transcribe(open_clip(silent)) is None
    mute = write_clip(tmp_path / "mute.mp4", pictures=(square(n) for n in range(5)))
    assert recogniser.transcribe(open_clip(mute)) is None


def test_settings_name_the_weights_wherever_they_lie(model: Path, tmp_path: Path) -> None:
    settings = make_recogniser("whisper", path=str(model)).settings()
    assert str(model.parent) not in json.dumps(settings)
    assert (settings["model"], settings["arguments"]) == (model.name, {"language": None})
    moved = shutil.copytree(model, tmp_path / "elsewhere" / "renamed")
    assert speech_from_settings(settings, [moved]).settings() == {**settings, "model": "renamed"}
    with pytest.raises(FileNotFoundError, match="Found other weights of that name"):
        speech_from_settings({**settings, "weights": "00"}, [model.parent])
    with pytest.raises(ValueError, match=r"made with `transformers = '0\.1'` of whisper"):
        speech_from_settings({**settings, "transformers": "0.1"}, [model])


def test_folders_that_hold_no_model_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no Whisper model at .*: it holds no `config\.json`"):
        Whisper(path=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no Whisper model that Transformers can load"):
        Whisper(path=str(tmp_path))
    with pytest.raises(ValueError, match=r"Parameter `language` should be left out: .* knows English alone"):
        Whisper(path=str(model), language="de")

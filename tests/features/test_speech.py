from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import square, write_clip

from equipoise.features.clip import open_clip
from equipoise.features.speech import make_recogniser, speech_from_settings


def test_words_of_real_speech_have_times(shared_data: Path) -> None:
    recogniser = make_recogniser("pocketsphinx")
    path = shared_data / "clips" / "brbk7n.mpg"
    found = recogniser.transcribe(open_clip(path))
    assert found is not None
    assert (found.origin, found.timing) == ("pocketsphinx", "recognised")
    assert found.words is not None
    assert found.text == " ".join(word.text for word in found.words)
    # "bin red by k seven now" is said; what is heard is known to be wrong in part.
    assert "by" in found.text.split()
    assert len(found.words) >= 4
    assert all(0.4 < word.start < word.end < 2.6 for word in found.words)
    # Another clip in between changes nothing.
    recogniser.transcribe(open_clip(shared_data / "clips" / "lrwp9a.mpg"))
    assert recogniser.transcribe(open_clip(path)) == found
    late = recogniser.transcribe(open_clip(path, start=0.4))
    assert late is not None
    assert late.words is not None
    assert late.words[-1].start + 0.4 == pytest.approx(found.words[-1].start, abs=0.05)


def test_nothing_said_is_no_transcript(tmp_path: Path) -> None:
    recogniser = make_recogniser("pocketsphinx")
    silent = write_clip(tmp_path / "silent.wav", audio=np.zeros(8000, np.float32), audio_codec="pcm_s16le")
    assert recogniser.transcribe(open_clip(silent)) is None
    mute = write_clip(tmp_path / "mute.mp4", pictures=(square(n) for n in range(5)))
    assert recogniser.transcribe(open_clip(mute)) is None


def test_settings_make_the_recogniser_again() -> None:
    settings = make_recogniser("pocketsphinx").settings()
    assert speech_from_settings(settings).settings() == settings
    with pytest.raises(ValueError, match=r"made with `pocketsphinx = '0\.1'`"):
        speech_from_settings({**settings, "pocketsphinx": "0.1"})
    with pytest.raises(ValueError, match=r"Unknown recogniser `kaldi`\. There are: pocketsphinx"):
        make_recogniser("kaldi")

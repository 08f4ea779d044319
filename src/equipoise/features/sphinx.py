"""Speech to words by PocketSphinx: English, offline with the model that its wheel carries."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.features.clip import Clip
from equipoise.features.speech_windows import speech_windows
from equipoise.features.transcript import Transcript, Word

RATE = 16000
FRAMES = 100  # a second, PocketSphinx's own
_DITHER = 3e-5  # -90 dB of full scale: on digital silence the acoustic model loses every path
_PAUSE = 0.5  # seconds added before and after: it forgets what it heard before, and a last word has an end


class PocketSphinx:
    """Words with their times, several times faster than real time on one core.

    The acoustic model, the dictionary and the trigram language model are those of US English that come with the wheel.
    Expect many wrong words: where the words matter, give transcripts, or a Whisper model by its path.

    It keeps fewer hypotheses than by default: half the time, and as many right words on the few clips that were tried.

    Source: Huggins-Daines et al., PocketSphinx: a free, real-time continuous speech recognition system for hand-held
    devices, ICASSP 2006.

    Raises:
        ModuleNotFoundError: the extra ``speech`` is not installed.
    """

    def __init__(self) -> None:
        self._version = sphinx_version()

    def settings(self) -> dict[str, Any]:
        """See `equipoise.features.speech.Recogniser`."""
        return {"name": "pocketsphinx", "arguments": {}, "pocketsphinx": self._version}

    def transcribe(self, clip: Clip) -> Transcript | None:
        """The words, lower case without punctuation; None for a clip without audio or without a word.

        Raises:
            MediaError: the audio can't be decoded.
        """
        decoder = make_decoder(maxhmmpf=3000, maxwpf=5)
        words: list[Word] = []
        for start, samples in speech_windows(clip.audio(RATE), RATE):
            words += decode(decoder, samples, start)
        if not words:
            return None
        return Transcript(" ".join(word.text for word in words), tuple(words), "pocketsphinx", "recognised")


def sphinx_version() -> str:
    """The version of PocketSphinx.

    Raises:
        ModuleNotFoundError: the extra ``speech`` is not installed.
    """
    try:
        return version("pocketsphinx")
    except PackageNotFoundError:
        raise ModuleNotFoundError('PocketSphinx is not installed: pip install "equipoise[speech]"') from None


def make_decoder(**settings: Any) -> Any:
    """A new decoder. Make one for each clip: what one has heard before changes what it hears.

    Raises:
        ModuleNotFoundError: the extra ``speech`` is not installed.
    """
    sphinx_version()
    from pocketsphinx import Decoder

    return Decoder(loglevel="FATAL", cmn="batch", **settings)


def decode(decoder: Any, samples: npt.NDArray[np.float32], start: float = 0.0) -> list[Word]:
    """The words that a decoder hears, without pauses and noises.

    Args:
        decoder: of :func:`make_decoder`.
        samples: ``[n]``, 16 kHz, full scale at 1.
        start: seconds to add to the times.
    """
    pause = np.zeros(round(_PAUSE * RATE))
    noise = np.random.default_rng(0).normal(scale=_DITHER, size=len(samples) + 2 * len(pause))
    heard = np.concatenate([pause, samples, pause]) + noise
    decoder.start_utt()
    decoder.process_raw((np.clip(heard, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:  # not even silence has survived the beam
        return []
    end = len(samples) / RATE
    words = []
    for found in decoder.seg():
        if found.word[0] not in "<[+":
            times = (found.start_frame / FRAMES - _PAUSE, (found.end_frame + 1) / FRAMES - _PAUSE)
            first, last = (round(start + min(max(time, 0.0), end), 3) for time in times)
            words.append(Word(found.word.split("(")[0], first, last))
    return words

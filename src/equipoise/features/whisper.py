"""Speech to words by a Whisper model on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from equipoise.features.clip import Clip
from equipoise.features.local_models import model_settings
from equipoise.features.speech_windows import speech_windows
from equipoise.features.transcript import Transcript, Word

RATE = 16000


class Whisper:
    """Words by a Whisper model, with their times where the model tells which heads attend to time.

    The audio is cut at pauses into windows of what the model reads at once (30 s) less two seconds; each is decoded
    greedily, without what was said before.

    Source: Radford et al., Robust speech recognition via large-scale weak supervision, 2022, by Transformers.

    Args:
        path: folder of a model that Transformers can load (``config.json``, weights, tokenizer and preprocessor).
            Nothing is downloaded.
        language: as in "english" or "de", for models of many languages; None to let the model find out.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no Whisper model in it, or a language that it doesn't know.
    """

    def __init__(self, *, path: str, language: str | None = None) -> None:
        if not (Path(path) / "config.json").is_file():
            raise FileNotFoundError(f"There is no Whisper model at {path}: it holds no `config.json`.")
        self._language, self._model = language, model_settings(path)
        self._pipeline = _load(path)
        self._generate: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        if self._pipeline.model.generation_config.is_multilingual:
            self._generate |= {"language": language, "task": "transcribe"}
        elif language is not None:
            raise ValueError(f"Parameter `language` should be left out: {path} knows English alone.")

    def settings(self) -> dict[str, Any]:
        """See `equipoise.features.speech.Recogniser`."""
        arguments = {"language": self._language}
        return {"name": "whisper", "arguments": arguments, **self._model, "transformers": version("transformers")}

    def transcribe(self, clip: Clip) -> Transcript | None:
        """The words as the model writes them; None for a clip without audio or without a word.

        Raises:
            MediaError: the audio can't be decoded.
        """
        timed = getattr(self._pipeline.model.generation_config, "alignment_heads", None) is not None
        texts: list[str] = []
        words: list[Word] = []
        longest = self._pipeline.feature_extractor.chunk_length - 2.0
        for start, samples in speech_windows(clip.audio(RATE), RATE, longest):
            sound = {"raw": samples, "sampling_rate": RATE}
            with _quiet():
                found = self._pipeline(
                    sound, return_timestamps="word" if timed else False, generate_kwargs=dict(self._generate)
                )
            texts += found["text"].split()
            words += _words(found.get("chunks", []), start, start + len(samples) / RATE)
        if not texts:
            return None
        if not timed:
            return Transcript(" ".join(texts), origin="whisper")
        return Transcript(" ".join(word.text for word in words), tuple(words), "whisper", "recognised")


def _words(chunks: list[dict[str, Any]], start: float, end: float) -> list[Word]:
    """Words of a window, none before the last one or after the window, whatever the model says."""
    words: list[Word] = []
    last = start
    for chunk in chunks:
        begins, ends = chunk["timestamp"]
        begins = last if begins is None else min(max(start + begins, last), end)
        ends = end if ends is None else min(max(start + ends, begins), end)
        if text := "".join(chunk["text"].split()):
            words.append(Word(text, round(begins, 3), round(ends, 3)))
            last = begins
    return words


def _load(path: str) -> Any:
    from transformers import AutoProcessor, WhisperForConditionalGeneration, pipeline

    try:
        with _quiet():
            model: Any = WhisperForConditionalGeneration.from_pretrained(path, local_files_only=True)
            processor: Any = AutoProcessor.from_pretrained(path, local_files_only=True)  # type: ignore[no-untyped-call]
            return pipeline(
                "automatic-speech-recognition",
                model=model.eval(),
                tokenizer=processor.tokenizer,
                feature_extractor=processor.feature_extractor,
                device="cpu",
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"The folder {path} holds no Whisper model that Transformers can load: {reason}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers draws a bar for a second's work, and warns of how its own pipeline calls its own model."""
    from transformers import utils

    logging: Any = utils.logging
    shown, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(shown)
        if bars:
            logging.enable_progress_bar()

"""What makes words of speech: one small interface, and the recognisers by their names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from equipoise.features.clip import Clip
from equipoise.features.local_models import arguments_of
from equipoise.features.stream import check_settings
from equipoise.features.transcript import Transcript

# name: (module, class). A recogniser of your own is added here, or passed as an object.
RECOGNISERS: dict[str, tuple[str, str]] = {
    "pocketsphinx": ("sphinx", "PocketSphinx"),
    "whisper": ("whisper", "Whisper"),
}


class Recogniser(Protocol):
    """Makes the transcript of a clip."""

    def settings(self) -> dict[str, Any]:
        """All that transcripts depend on, as JSON: ``name``, ``arguments``, versions."""
        ...

    def transcribe(self, clip: Clip) -> Transcript | None:
        """What is said, or None where nothing is; memory does not grow with the clip but for the words.

        Raises:
            MediaError: the audio can't be decoded.
        """
        ...


def make_recogniser(name: str, **arguments: Any) -> Recogniser:
    """A recogniser by its name.

    Args:
        name: one of `RECOGNISERS`.
        arguments: of its class; ``path`` is the folder of a model.

    Raises:
        ValueError: no such name, or arguments that it refuses.
        FileNotFoundError: no such model.
        ModuleNotFoundError: it needs an extra that is not installed.
    """
    if name not in RECOGNISERS:
        raise ValueError(f"Unknown recogniser `{name}`. There are: {', '.join(RECOGNISERS)}.")
    module, cls = RECOGNISERS[name]
    return cast(Recogniser, getattr(importlib.import_module(f"equipoise.features.{module}"), cls)(**arguments))


def speech_from_settings(settings: Mapping[str, Any], models: Sequence[str | Path] = ()) -> Recogniser:
    """The recogniser that made some transcripts, from what its ``settings`` said.

    Args:
        settings: of the recogniser.
        models: where its model may lie, see `equipoise.features.local_models.find_model`.

    Raises:
        ValueError: no such recogniser here, or one that would make other transcripts.
        FileNotFoundError: its model is not here.
        ModuleNotFoundError: it needs an extra that is not installed.
    """
    recogniser = make_recogniser(str(settings.get("name")), **arguments_of(settings, models))
    check_settings(settings, recogniser.settings())
    return recogniser

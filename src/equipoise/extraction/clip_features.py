"""One clip to its features, as a recipe says; the same for making a dataset, scoring and serving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from os import PathLike
from pathlib import Path

from equipoise.extraction.extracted import ExtractedClip
from equipoise.extraction.recipe import Recipe
from equipoise.features.alignment import align_words, aligner
from equipoise.features.clip import Clip, MediaError, decoder, open_clip
from equipoise.features.extractors import from_settings
from equipoise.features.sidecar import read_sidecar
from equipoise.features.speech import Recogniser, speech_from_settings
from equipoise.features.stream import Extractor, check_settings, no_frames
from equipoise.features.transcript import Transcript
from equipoise.features.words import pool_to_words


def extract_clip(
    path: str | PathLike[str],
    recipe: Recipe,
    *,
    start: float = 0.0,
    end: float | None = None,
    text: str | Transcript | None = None,
    sidecar: bool = True,
    id: str | None = None,
    models: Sequence[str | Path] = (),
) -> ExtractedClip:
    """The features and the transcript of one clip, or of one segment of it.

    What a clip lacks (no audio track, no face) is a stream without frames that says why. A track that can't be decoded
    counts as absent where another one can.

    Args:
        path: the file.
        recipe: how; extractors are built once in a process and kept.
        start: seconds at which the segment begins.
        end: seconds at which it ends; the end of the file by default.
        text: what is said. None: what the file beside the clip says, else what the recipe's recogniser hears.
        sidecar: whether to look for a file beside the clip.
        id: name in tables; the file's name without its ending by default.
        models: files and folders of the models that the recipe asks for, see `equipoise.features.local_models`.

    Raises:
        MediaError: the file is missing, or nothing of it can be decoded.
        ValueError: the recipe asks for other versions of libraries than there are here; see `check_recipe`.
        FileNotFoundError: a model that the recipe asks for is not here; a recogniser's only where words are missing.
        ModuleNotFoundError: an extractor needs an extra that is not installed.
    """
    check_recipe(replace(recipe, speech=None), models)  # a clip whose words are known needs no recogniser
    clip = open_clip(path, start=start, end=end)
    streams, broken = {}, []
    for name, extractor in _extractors_of(recipe, models).items():
        try:
            streams[name] = extractor.extract(clip)
        except MediaError as error:
            broken.append(error)
            streams[name] = no_frames(len(extractor.columns), str(error))
    if broken and not any(len(stream.values) for stream in streams.values()):
        raise broken[0]
    transcript = _transcript(clip, recipe, text, models, sidecar=sidecar) if recipe.text else None
    if recipe.align == "words":
        transcript = _with_times(clip, recipe, transcript)
        words = transcript.words if transcript is not None and transcript.words else ()
        streams = {name: pool_to_words(stream, words) for name, stream in streams.items()}
    return ExtractedClip(
        id=Path(path).stem if id is None else id,
        streams=streams,
        transcript=transcript,
        duration=clip.duration,
        facts=clip.facts,
        notes=tuple(clip.notes),
    )


def check_recipe(recipe: Recipe, models: Sequence[str | Path] = ()) -> None:
    """Refuse a recipe whose features would come out otherwise here.

    Args:
        recipe: as a dataset or a saved model holds it.
        models: as in `extract_clip`.

    Raises:
        ValueError: an extractor that is not there, or other versions of libraries; one line.
        FileNotFoundError: a model that is not here.
        ModuleNotFoundError: an extra that is not installed.
    """
    _checked(json.dumps(recipe.to_json(), sort_keys=True), _places(models))


def columns_of(recipe: Recipe, models: Sequence[str | Path] = ()) -> dict[str, tuple[str, ...]]:
    """Names of the features of each modality that a recipe extracts.

    Args:
        recipe: as a dataset or a saved model holds it.
        models: as in `extract_clip`.

    Raises:
        ValueError, FileNotFoundError, ModuleNotFoundError: as `check_recipe`.
    """
    return {name: tuple(extractor.columns) for name, extractor in _extractors_of(recipe, models).items()}


def _transcript(
    clip: Clip, recipe: Recipe, text: str | Transcript | None, models: Sequence[str | Path], *, sidecar: bool
) -> Transcript | None:
    found = Transcript(" ".join(text.split())) if isinstance(text, str) else text
    if found is not None:
        return found if found.text else None
    try:
        found = read_sidecar(clip) if sidecar else None
    except ValueError as error:  # a clip is not lost for the file beside it
        clip.note(str(error))
    if found is None and recipe.speech is not None and clip.has_audio:
        try:
            found = _recogniser(json.dumps(recipe.speech, sort_keys=True), _places(models)).transcribe(clip)
        except MediaError as error:
            clip.note(f"no speech recognised: {error}")
    return found


def _with_times(clip: Clip, recipe: Recipe, transcript: Transcript | None) -> Transcript | None:
    if transcript is None or transcript.words is not None:
        return transcript
    if recipe.aligner is None:
        clip.note('no times of words: forced alignment needs pip install "equipoise[speech]" where the recipe is made')
        return transcript
    try:
        return align_words(clip, transcript)
    except MediaError as error:
        clip.note(f"words not aligned: {error}")
        return transcript


def _extractors_of(recipe: Recipe, models: Sequence[str | Path]) -> dict[str, Extractor]:
    given = {"audio": recipe.audio, "vision": recipe.vision}
    return _extractors(json.dumps(given, sort_keys=True), _places(models))


def _places(models: Sequence[str | Path]) -> tuple[str, ...]:
    return tuple(map(str, models))


@lru_cache(maxsize=8)
def _checked(key: str, models: tuple[str, ...]) -> None:
    recipe = Recipe(**json.loads(key))
    _extractors_of(recipe, models)
    if recipe.speech is not None:
        _recogniser(json.dumps(recipe.speech, sort_keys=True), models)
    for name, made_by, here in (("the decoder", recipe.decoder, decoder), ("the aligner", recipe.aligner, aligner)):
        if made_by is not None:
            check_settings({"name": name, **made_by}, {"name": name, **here()})


@lru_cache(maxsize=8)
def _extractors(key: str, models: tuple[str, ...]) -> dict[str, Extractor]:
    given = json.loads(key)
    return {name: from_settings(settings, models) for name, settings in given.items() if settings is not None}


@lru_cache(maxsize=2)
def _recogniser(key: str, models: tuple[str, ...]) -> Recogniser:
    return speech_from_settings(json.loads(key), models)

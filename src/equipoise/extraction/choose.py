"""A recipe from names: of extractors, of what recognises speech, of the alignment."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from equipoise.extraction.recipe import Align, Recipe
from equipoise.features.alignment import aligner
from equipoise.features.clip import decoder
from equipoise.features.extractors import EXTRACTORS, make_extractor
from equipoise.features.local_models import model_places
from equipoise.features.speech import RECOGNISERS, make_recogniser
from equipoise.training.arguments import check_arguments, unknown

PARTS = ("audio", "vision", "speech")


def choose_recipe(
    *,
    audio: str | None = "log-mel",
    vision: str | None = "face-boxes",
    speech: str | None = None,
    text: bool = True,
    align: Align = "none",
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recipe:
    """A recipe with the versions of libraries that are here.

    Args:
        audio: name of the audio extractor, see `names`; None to leave audio out.
        vision: of the vision extractor; None to leave vision out.
        speech: what recognises speech where a clip has no transcript: ``NAME``, or ``NAME:PATH`` with the folder of a
            model; None for nothing.
        text: whether transcripts belong to the dataset.
        align: ``words`` to average audio and vision over each spoken word. Where a transcript has no times, they are
            found by forced alignment if the extra ``speech`` is installed.
        arguments: of the extractors and the recogniser by part, such as ``{"audio": {"bins": 40}}``; text is
            converted to the type that the argument has.

    Raises:
        ValueError: an unknown name or argument, nothing to extract, or an alignment without transcripts; one line.
        FileNotFoundError: no model at the path.
        ModuleNotFoundError: an extra that is not installed.
    """
    given = {part: dict((arguments or {}).get(part, {})) for part in PARTS}
    strange = sorted(set(arguments or {}) - set(PARTS))
    if strange:
        raise ValueError(unknown("part of an extraction", strange[0], PARTS))
    if audio is None and vision is None and not text:
        raise ValueError("There is nothing to extract: audio, vision and text are all `none`.")
    if align == "words" and not text:
        raise ValueError("Parameter `align`: words need transcripts. Found `text` off; use `align = none`.")
    if speech is not None and not text:
        raise ValueError("Parameter `speech` needs transcripts in the dataset. Found `text` off.")
    chosen = {"audio": audio, "vision": vision, "speech": speech}
    unused = [part for part in PARTS if given[part] and chosen[part] is None]
    if unused:
        raise ValueError(f"Arguments of `{unused[0]}` are given, but it is left out. Choose one, or take them out.")
    return Recipe(
        audio=_extractor("audio", audio, given["audio"]),
        vision=_extractor("vision", vision, given["vision"]),
        speech=_recogniser(speech, given["speech"]),
        text=text,
        align=align,
        aligner=_aligner() if align == "words" else None,
        decoder=decoder(),
    )


def model_paths(speech: str | None, arguments: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Where the models lie that a choice names: a recipe does not tell, so who follows it here is told apart from it.

    Args:
        speech: as in `choose_recipe`.
        arguments: likewise.
    """
    named = [(speech or "").partition(":")[2], *(each.get("path", "") for each in arguments.values())]
    return model_places([str(path) for path in named if path])


def names(modality: str) -> list[str]:
    """The extractors of a modality."""
    return [name for name, (of, _, _) in EXTRACTORS.items() if of == modality]


def _extractor(modality: str, name: str | None, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if name is None:
        return None
    if name not in names(modality):
        raise ValueError(unknown(f"{modality} extractor", name, [*names(modality), "none"]))
    _, module, cls = EXTRACTORS[name]
    checked = check_arguments(_class(module, cls), arguments, key=modality)
    return _plain(make_extractor(name, **checked).settings())


def _recogniser(given: str | None, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if given is None:
        return None
    name, _, path = given.partition(":")
    if name not in RECOGNISERS:
        raise ValueError(unknown("recogniser", name, [*RECOGNISERS, "none"]))
    if path:
        arguments["path"] = path
    checked = check_arguments(_class(*RECOGNISERS[name]), arguments, key="speech")
    return _plain(make_recogniser(name, **checked).settings())


def _aligner() -> dict[str, str] | None:
    try:
        return aligner()
    except ModuleNotFoundError:  # transcripts may have times of their own
        return None


def _class(module: str, cls: str) -> Any:
    return getattr(importlib.import_module(f"equipoise.features.{module}"), cls)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a manifest: equal settings have to be equal then too."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, allow_nan=False))
    return plain

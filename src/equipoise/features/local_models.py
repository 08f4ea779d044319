"""Models that lie on the disk: settings hold their name and the SHA-256 of their weights, never where they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.layers import weights_sha256

MODELS = "EQUIPOISE_MODELS"
"""Environment variable with folders of models, joined as those of PATH are."""


def model_settings(path: str | Path | None) -> dict[str, str | None]:
    """What settings say of a model: ``model``, its file's or folder's name, and ``weights``, their SHA-256.

    Args:
        path: of the model; None where the extractor carries its own.
    """
    if path is None:
        return {"model": None, "weights": None}
    return {"model": Path(os.path.abspath(path)).name, "weights": _sha256(Path(path))}


def model_places(models: Sequence[str | Path] = ()) -> tuple[str, ...]:
    """Where models are looked for: the places given, then those of the environment variable; absolute, each once."""
    listed = [each for each in os.environ.get(MODELS, "").split(os.pathsep) if each]
    return tuple(dict.fromkeys(os.path.abspath(os.path.expanduser(each)) for each in (*models, *listed)))


def arguments_of(settings: Mapping[str, Any], models: Sequence[str | Path]) -> dict[str, Any]:
    """The arguments that build an extractor or a recogniser again, with the path that its model has here.

    Raises:
        FileNotFoundError: as `find_model`.
    """
    arguments = dict(settings.get("arguments", {}))
    arguments.pop("path", None)  # a place on another disk is no place to look
    found = find_model(settings, models)
    return arguments if found is None else {**arguments, "path": found}


def find_model(settings: Mapping[str, Any], models: Sequence[str | Path] = ()) -> str | None:
    """Where the model of an extractor or a recogniser lies here; None where it needs none.

    The weights decide, not the name: a place of ``models`` may be the model itself, or the folder that holds it under
    its name.

    Args:
        settings: of the extractor or the recogniser.
        models: files and folders, searched before those of ``EQUIPOISE_MODELS``.

    Raises:
        FileNotFoundError: no model with these weights.
    """
    weights = settings.get("weights")
    if weights is None:
        return None
    name, others = Path(str(settings.get("model") or "")).name, []
    for path in _candidates(name, model_places(models)):
        found = _sha256(path)
        if found == weights:
            return str(path)
        if path.name == name:
            others.append(found)
    instead = f"other weights of that name (SHA-256 {others[0][:12]})" if others else "none"
    raise FileNotFoundError(
        f"`{settings.get('name')}` needs the model `{name}` with weights of SHA-256 {str(weights)[:12]}. Found "
        f"{instead}: name the folder that holds it, `--models DIR` or {MODELS}."
    )


def _candidates(name: str, places: Sequence[str]) -> Iterator[Path]:
    for place in map(Path, places):
        for path in (place, place / name) if name else (place,):
            if path.exists():
                yield path


def _sha256(path: Path) -> str:
    if path.is_dir():
        return weights_sha256(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

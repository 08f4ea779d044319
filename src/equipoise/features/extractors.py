"""Names of extractors to their classes; nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from equipoise.features.local_models import arguments_of
from equipoise.features.stream import Extractor, check_settings

# name: (modality, module, class). An extractor of your own is added here, or passed as an object.
EXTRACTORS: dict[str, tuple[str, str, str]] = {
    "log-mel": ("audio", "log_mel", "LogMel"),
    "mfcc": ("audio", "mfcc", "Mfcc"),
    "egemaps": ("audio", "egemaps", "Egemaps"),
    "face-boxes": ("vision", "face_boxes", "FaceBoxes"),
    "face-mesh": ("vision", "face_mesh", "FaceMesh"),
}


def make_extractor(name: str, **arguments: Any) -> Extractor:
    """An extractor by its name.

    Raises:
        ValueError: no such name, or arguments that it refuses.
        ModuleNotFoundError: it needs an extra that is not installed.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"Unknown extractor `{name}`. There are: {', '.join(EXTRACTORS)}.")
    _, module, cls = EXTRACTORS[name]
    return cast(Extractor, getattr(importlib.import_module(f"equipoise.features.{module}"), cls)(**arguments))


def from_settings(settings: Mapping[str, Any], models: Sequence[str | Path] = ()) -> Extractor:
    """The extractor that made some features, from what its ``settings`` said.

    Args:
        settings: of the extractor.
        models: where its model may lie, see `equipoise.features.local_models.find_model`.

    Raises:
        ValueError: no such extractor here, or one that would make other features.
        FileNotFoundError: its model is not here.
        ModuleNotFoundError: it needs an extra that is not installed.
    """
    extractor = make_extractor(str(settings.get("name")), **arguments_of(settings, models))
    check_settings(settings, extractor.settings())
    return extractor

"""Names of extractors to their classes; nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

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


def from_settings(settings: Mapping[str, Any]) -> Extractor:
    """The extractor that made some features, from what its ``settings`` said.

    Raises:
        ValueError: no such extractor here, or one that would make other features.
        ModuleNotFoundError: it needs an extra that is not installed.
    """
    arguments = dict(settings.get("arguments", {}))
    extractor = make_extractor(str(settings.get("name")), **arguments)
    check_settings(settings, extractor.settings())
    return extractor

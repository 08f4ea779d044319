"""What an extractor gives and what it is asked: one small interface, so that a new one is one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from equipoise.features.clip import Clip


@dataclass(frozen=True, eq=False)
class FeatureStream:
    """The features of one modality of one clip.

    Attributes:
        values: ``[T, d]`` float32, finite.
        times: ``[T]`` seconds from the start of the clip (of its segment) to the middle of what each frame describes,
            rising.
        rate: frames a second; 0 where they are not evenly spaced.
        absent: why there is no frame (no audio track, no face in any picture); empty where there is one.
        notes: what a reader of the report should know: pictures without a face, a track that breaks off.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or frames and a reason for their absence.
    """

    values: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    rate: float
    absent: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.times.shape != self.values.shape[:1]:
            found = f"{list(self.values.shape)} and {list(self.times.shape)}"
            raise ValueError(f"Parameters `values` and `times` should be [T, d] and [T]. Found {found}.")
        if bool(len(self.values)) == bool(self.absent):
            raise ValueError(
                "Parameter `absent` should be given where there is no frame, and only there. "
                f"Found {self.absent!r} for {len(self.values)} frames."
            )
        if not np.isfinite(self.values).all():
            raise ValueError("Parameter `values` should be finite. Found NaN or infinity.")


class Extractor(Protocol):
    """Makes the features of one modality of a clip.

    Attributes:
        modality: ``audio`` or ``vision``.
        columns: names of the d features of a frame.
    """

    modality: str
    columns: Sequence[str]

    def settings(self) -> dict[str, Any]:
        """All that the features depend on, as JSON: ``name`` of the extractor, its arguments, versions of libraries.

        Equal settings give equal features of equal clips; `equipoise.features.extractors.from_settings` builds the
        extractor again.
        """
        ...

    def extract(self, clip: Clip) -> FeatureStream:
        """The features; memory does not grow with the clip's length but for the result.

        Raises:
            MediaError: the clip can't be decoded.
        """
        ...


def no_frames(dim: int, reason: str) -> FeatureStream:
    """The stream of a clip that has nothing of a modality."""
    return FeatureStream(np.zeros((0, dim), np.float32), np.zeros(0), 0.0, reason)


def check_settings(settings: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse an extractor that would make other features than those that its settings describe.

    What a model is called (``model``) makes no other features, its ``weights`` do.

    Raises:
        ValueError: the first setting that differs.
    """
    for key in sorted({*settings, *found} - {"model"}):
        if settings.get(key) != found.get(key):
            raise ValueError(
                f"The features were made with `{key} = {settings.get(key)!r}` of {settings.get('name')}. Found "
                f"{found.get(key)!r} here: install what they were made with, or extract them again."
            )

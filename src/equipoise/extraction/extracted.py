"""What one clip gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from equipoise.features.stream import FeatureStream
from equipoise.features.transcript import Transcript


@dataclass(frozen=True, eq=False)
class ExtractedClip:
    """The features of one clip, or of one segment of it.

    Attributes:
        id: of the clip in tables.
        streams: audio and vision as the recipe asks for them; a stream without frames says why.
        transcript: None where there is none.
        duration: seconds of the clip or segment.
        facts: what the container said: streams, codecs, rates, rotation, as JSON.
        notes: what a reader of the report should know.
    """

    id: str
    streams: dict[str, FeatureStream]
    transcript: Transcript | None
    duration: float
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

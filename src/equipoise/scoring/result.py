"""What a model says of one clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from equipoise.features.transcript import Transcript


@dataclass(frozen=True, slots=True)
class WordWeight:
    """What one word does to the score.

    Attributes:
        text: as written.
        weights: ``{output: change}``, the value with the word less the value without it.
        start, end: seconds from the start of the clip (of its segment); None where they are not known.
    """

    text: str
    weights: dict[str, float]
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class ClipScore:
    """What a model says of one clip, or why it says nothing.

    An *output* is a target of a regression (``score`` where it has no name), in the units of the labels, or a class,
    as a probability.

    Attributes:
        id: of the clip in tables.
        start, end: seconds of the file that were scored.
        values: ``{output: value}``; empty where there is an ``error``.
        label: the most probable class; None for a regression.
        interval: ``{target: (low, high)}``, which holds the truth with probability ``level``, each target on its own;
            None for classes, and where ``notes`` say why there is none.
        likely: the classes among which the true one is with probability ``level``, most probable first; None as above.
        level: of ``interval`` or ``likely``.
        baseline: ``{output: value}`` with every modality muted.
        contributions: ``{modality: {output: Shapley value}}`` of the modalities that were used; with ``baseline`` they
            add up to ``values``.
        missing: ``{modality: why the model could not read it}``; also text without words, which a model that was
            trained on clips without words reads as such.
        words: weight of each word of the transcript; None where not asked for, or without a transcript.
        transcript: what is said; None where it is not known.
        notes: what a reader of the score should know.
        error: why there is no score, in one line; empty where there is one.
    """

    id: str
    start: float = 0.0
    end: float = 0.0
    values: dict[str, float] = field(default_factory=dict)
    label: str | None = None
    interval: dict[str, tuple[float, float]] | None = None
    likely: tuple[str, ...] | None = None
    level: float | None = None
    baseline: dict[str, float] = field(default_factory=dict)
    contributions: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    words: tuple[WordWeight, ...] | None = None
    transcript: Transcript | None = None
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def used(self) -> tuple[str, ...]:
        """The modalities that the score comes from."""
        return tuple(self.contributions)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the attributes by their names, and ``used``."""
        return {**asdict(self), "used": list(self.used)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ClipScore:
        """The score that `to_json` told, also after a way through a JSON file."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python({key: value for key, value in content.items() if key != "used"})

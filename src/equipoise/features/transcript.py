"""What is said in a clip, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word.

    Attributes:
        text: as written.
        start, end: seconds from the start of the clip (of its segment).
    """

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What is said.

    Attributes:
        text: the words in order.
        words: with their times, in order; None where these are not known.
        origin: ``labels``, ``sidecar``, or the name of the recogniser.
        timing: where the times come from: ``sidecar``, ``recognised``, ``aligned``; empty without times.
    """

    text: str
    words: tuple[Word, ...] | None = None
    origin: str = "labels"
    timing: str = ""

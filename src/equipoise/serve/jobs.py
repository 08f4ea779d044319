"""A clip on its way to a score, and the results that are remembered for a while."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from equipoise.scoring.result import ClipScore

Status = Literal["queued", "decoding", "scoring", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of one clip.

    Attributes:
        text: what is said, if known.
        only: the modalities to use; None for all.
        words: also the weight of each word.
        level: of intervals.
        start, end: seconds of the segment.
        window, hop: seconds of each piece of a timeline and from one to the next; None for no timeline.
    """

    text: str | None = None
    only: tuple[str, ...] | None = None
    words: bool = False
    level: float | None = None
    start: float = 0.0
    end: float | None = None
    window: float | None = None
    hop: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a clip has no score: a code for programs, one line for people, and the HTTP status that fits."""

    code: str
    message: str
    http: int


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model says of a clip, and of its pieces one after the other."""

    score: ClipScore
    timeline: tuple[ClipScore, ...] = ()


@dataclass(eq=False)
class Job:
    """One clip.

    Attributes:
        name: as its sender calls it.
        options: what is asked.
        path: the file, alone in its folder; None for a text without a clip. Gone once it is decoded.
        ticket: how many were taken on up to this one.
        seconds: that each stage took.
    """

    name: str
    options: Options
    path: Path | None = None
    ticket: int = 0
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    status: Status = "queued"
    seconds: dict[str, float] = field(default_factory=dict)
    scored: Scored | None = None
    problem: Problem | None = None
    begun: float = field(default_factory=time.monotonic)
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, outcome: Scored | Problem) -> None:
        """Note the outcome and wake whoever waits for it."""
        if isinstance(outcome, Problem):
            self.status, self.problem = "failed", outcome
        else:
            self.status, self.scored = "done", outcome
        self.seconds["whole"] = time.monotonic() - self.begun
        self.finished.set()


class Jobs:
    """Jobs by their ids; finished ones are forgotten after a while, the oldest first.

    Args:
        most: finished ones that are remembered.
        seconds: for how long.
        clock: seconds, rising.
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._open: dict[str, Job] = {}
        self._finished: OrderedDict[str, tuple[float, Job]] = OrderedDict()

    def __len__(self) -> int:
        self._forget()
        return len(self._open) + len(self._finished)

    def add(self, job: Job) -> None:
        """Remember a job."""
        self._open[job.id] = job

    def get(self, id: str) -> Job | None:
        """The job of that id, unless it is forgotten."""
        self._forget()
        held = self._finished.get(id)
        return self._open.get(id) or (held and held[1]) or None

    def settle(self, job: Job) -> None:
        """It is finished: from now on it may be forgotten."""
        if self._open.pop(job.id, None) is not None:
            self._finished[job.id] = (self._clock(), job)
        self._forget()

    def drop(self, id: str) -> bool:
        """Forget a job now; whether there was one. One that is not finished goes on unseen."""
        self._forget()
        return self._open.pop(id, None) is not None or self._finished.pop(id, None) is not None

    def _forget(self) -> None:
        oldest = self._clock() - self._seconds
        while self._finished:
            since, _ = next(iter(self._finished.values()))
            if len(self._finished) <= self._most and since > oldest:
                return
            self._finished.popitem(last=False)

"""What the API takes and gives, as OpenAPI describes it."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from equipoise.scoring.result import ClipScore
from equipoise.serve.jobs import Job, Options, Status

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Question(BaseModel):
    """The fields of an upload beside the clip itself; all may be left out."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(None, description="What is said, if known. Without a clip: the text to score.")
    only: str | None = Field(None, description="Modalities to use, separated by commas; all by default.")
    words: bool = Field(False, description="Also the weight of each word of the transcript.")
    level: float | None = Field(None, gt=0, lt=1, description="Of intervals; one of those that the model holds.")
    start: Seconds = Field(0.0, description="Seconds at which the segment to score begins.")
    end: Seconds | None = Field(None, description="Seconds at which it ends; the end of the clip by default.")
    window: float | None = Field(None, ge=0.5, le=600, description="Seconds of each piece of a timeline.")
    hop: float | None = Field(None, ge=0.1, le=600, description="Seconds from one piece to the next; the window.")

    @field_validator("text")
    @classmethod
    def _some_text(cls, text: str | None) -> str | None:
        return text if text and text.strip() else None

    @model_validator(mode="after")
    def _in_order(self) -> Question:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"`end` should be greater than `start`. Found {self.start:g} to {self.end:g}.")
        if self.hop is not None and self.window is None:
            raise ValueError("`hop` needs `window`.")
        return self

    def options(self) -> Options:
        """The same, as the service takes it."""
        only = None if self.only is None else tuple(name.strip() for name in self.only.split(",") if name.strip())
        return Options(
            self.text, only, self.words, self.level, self.start, self.end, self.window, self.hop or self.window
        )


class ErrorBody(BaseModel):
    """A code for programs and one line for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """Every error of the API."""

    error: ErrorBody


class JobAnswer(BaseModel):
    """A clip and how far it is."""

    id: str = Field(description="Ask for it at /api/clips/ID. Who knows it can read the score.")
    name: str
    status: Status
    position: int = Field(description="Clips that are decoded before this one.")
    seconds: dict[str, float] = Field(description="That each stage took: waiting, decoding, scoring, whole.")
    error: ErrorBody | None = Field(None, description="Why there is no score.")
    score: ClipScore | None = None
    timeline: list[ClipScore] = Field([], description="Pieces of the clip in order, where a window was asked for.")


class LimitsAnswer(BaseModel):
    """What the server takes on."""

    upload_bytes: int
    clip_seconds: float
    text_length: int
    uploads_a_minute: int = Field(description="Of one address; 0 for any number.")


class ModelAnswer(BaseModel):
    """What is served."""

    model: str
    dataset: str
    synthetic: bool = Field(description="It was trained on generated data.")
    modalities: list[str]
    reads_text: bool
    task: str
    classes: list[str]
    range: list[float] | None = Field(description="Least and greatest label.")
    limits: LimitsAnswer


class HealthAnswer(BaseModel):
    """Whether clips are taken, and how their decoding is confined."""

    status: str
    queue: int
    confined: dict[str, bool]


def answer_of(job: Job, position: int) -> dict[str, Any]:
    """A job as JSON; a number that JSON lacks becomes null."""
    error = None if job.problem is None else {"code": job.problem.code, "message": job.problem.message}
    scored = job.scored
    return {
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "position": position,
        "seconds": {stage: round(seconds, 3) for stage, seconds in job.seconds.items()},
        "error": error,
        "score": None if scored is None else plain(scored.score.to_json()),
        "timeline": [] if scored is None else [plain(piece.to_json()) for piece in scored.timeline],
    }


def plain(value: Any) -> Any:
    """JSON of it."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""What was asked of several clips, answered in as few forward passes as their questions allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from equipoise.extraction.extracted import ExtractedClip
from equipoise.scoring.intervals import check_level
from equipoise.scoring.result import ClipScore
from equipoise.scoring.score import LEVEL, Scorer
from equipoise.scoring.timeline import windows
from equipoise.serve.jobs import Options, Scored
from equipoise.serve.pieces import cut_clip

MOST_PIECES = 600
Asked = tuple[ExtractedClip, Options]
_Question = tuple[tuple[str, ...] | None, bool, float]


def check_options(scorer: Scorer, options: Options) -> None:
    """Refuse what a model can't answer.

    Raises:
        ValueError: modalities that it does not read, a level that it does not hold; one line.
    """
    known = scorer.info.modalities
    unknown = sorted(set(options.only or ()) - set(known))
    if unknown or options.only == ():
        raise ValueError(f"`only` should name some of {', '.join(known)}. Found `{', '.join(unknown)}`.")
    if options.level is not None:
        check_level(scorer.info, options.level)


def score_together(scorer: Scorer, asked: Sequence[Asked]) -> list[Scored]:
    """The scores of clips and of their pieces, in the order given.

    Times are those of the file. A timeline of more than `MOST_PIECES` pieces is not made, which a note tells.
    """
    clips: dict[_Question, list[ExtractedClip]] = {}
    places: list[tuple[_Question, int]] = []
    pieces: dict[int, list[tuple[float, float, _Question, int]]] = {}
    for i, (clip, options) in enumerate(asked):
        question = (options.only, options.words, options.level or LEVEL)
        places.append((question, _put(clips, question, clip)))
        brief = (question[0], False, question[2])
        pieces[i] = [
            (start, end, brief, _put(clips, brief, cut_clip(clip, start, end)))
            for start, end in _windows(clip, options)
        ]
    found = {
        (only, words, level): scorer.score(some, only=only, level=level, words=words)
        for (only, words, level), some in clips.items()
    }
    answers = []
    for i, (clip, options) in enumerate(asked):
        question, at = places[i]
        score = _placed(found[question][at], options.start, 0.0, clip.duration)
        line = tuple(_placed(found[brief][k], options.start, start, end) for start, end, brief, k in pieces[i])
        if not line and clip.streams and options.window and clip.duration > options.window:
            score = replace(
                score, notes=(*score.notes, f"no timeline: more than {MOST_PIECES} pieces, take a longer hop")
            )
        answers.append(Scored(score, line))
    return answers


def _windows(clip: ExtractedClip, options: Options) -> list[tuple[float, float]]:
    if options.window is None or not clip.streams:
        return []
    found = windows(clip.duration, options.window, options.hop)
    return found if 1 < len(found) <= MOST_PIECES else []


def _put(clips: dict[_Question, list[ExtractedClip]], question: _Question, clip: ExtractedClip) -> int:
    some = clips.setdefault(question, [])
    some.append(clip)
    return len(some) - 1


def _placed(score: ClipScore, first: float, start: float, end: float) -> ClipScore:
    return replace(score, start=first + start, end=first + end)

"""The transcript that lies beside a clip, with the times of its words where it has them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from equipoise.features.captions import parse_captions
from equipoise.features.clip import Clip
from equipoise.features.transcript import Transcript, Word

SUFFIXES = (".json", ".vtt", ".srt", ".txt")  # what may hold times of words comes first


def find_sidecar(path: Path) -> Path | None:
    """The transcript beside a clip: ``talk.srt`` or ``talk.mp4.srt`` for ``talk.mp4``, in the order of `SUFFIXES`."""
    names = (path.with_suffix(suffix) for suffix in SUFFIXES)
    longer = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    pairs = (file for pair in zip(names, longer, strict=True) for file in pair)
    return next((file for file in pairs if file != path and file.is_file()), None)


def read_sidecar(clip: Clip) -> Transcript | None:
    """What is said in a clip or its segment, by the file beside it.

    - ``.txt``: the words alone, for a whole clip.
    - ``.srt``, ``.vtt``: captions. A segment takes those whose middles lie in it. Where each caption is one word, or
      times stand between the words, words have times.
    - ``.json``: ``{"text": ...}``; a list of words ``{"word": ..., "start": ..., "end": ...}`` (seconds), bare or as
      ``"words"``; or ``"segments"`` of the same form that may hold ``"words"``, as recognisers write.

    What lies after the end of the clip is left out and noted.

    Returns:
        None where there is no such file, or it says nothing (of the segment).

    Raises:
        ValueError: a file that can't be read, or one without times beside a clip of which a segment is asked for.
    """
    path = find_sidecar(clip.path)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            pieces: list[Word] | str = _from_json(json.loads(text))
        else:
            pieces = text if path.suffix == ".txt" else parse_captions(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is not text in UTF-8." if isinstance(error, UnicodeDecodeError) else str(error)
        raise ValueError(f"The transcript {path} can't be read: {reason}") from None
    if isinstance(pieces, str):
        if clip.start > 0 or clip.end < clip.facts["duration"]:
            raise ValueError(
                f"The transcript {path} has no times, so it can't be cut to a segment. "
                "Write its text into the labels, or give captions (.srt)."
            )
        plain = " ".join(pieces.split())
        return Transcript(plain, origin="sidecar") if plain else None
    return _cut(clip, path, pieces)


def _cut(clip: Clip, path: Path, pieces: Iterable[Word]) -> Transcript | None:
    """The pieces in a clip's segment, with times from its start."""
    pieces = sorted(pieces, key=lambda piece: (piece.start + piece.end) / 2)
    late = sum((piece.start + piece.end) / 2 >= clip.facts["duration"] for piece in pieces)
    if late:
        clip.note(f"{late} parts of {path.name} lie after the end of the clip")
    inside = tuple(
        Word(piece.text, max(piece.start - clip.start, 0.0), min(piece.end, clip.end) - clip.start)
        for piece in pieces
        if clip.start <= (piece.start + piece.end) / 2 < clip.end
    )
    if not inside:
        return None
    text = " ".join(piece.text for piece in inside)
    if any(" " in piece.text for piece in inside):
        return Transcript(text, origin="sidecar")
    return Transcript(text, inside, origin="sidecar", timing="sidecar")


def _from_json(found: Any) -> list[Word] | str:
    if isinstance(found, Mapping):
        if isinstance(found.get("words"), list):
            return _timed(found["words"], "words")
        if isinstance(found.get("segments"), list):
            return _segments(found["segments"])
        if isinstance(found.get("text"), str):
            return str(found["text"])
    elif isinstance(found, list):
        return _timed(found, "the list")
    raise ValueError("there should be `text`, a list of `words`, or of `segments`.")


def _segments(found: list[Any]) -> list[Word]:
    """Words if every segment has theirs, else the segments."""
    inner: list[Any] = [entry.get("words") if isinstance(entry, Mapping) else None for entry in found]
    if all(isinstance(words, list) and _has_times(words) for words in inner):
        return [word for words in inner for word in _timed(words, "words")]
    return _timed(found, "segments")


def _has_times(words: list[Any]) -> bool:
    return all(isinstance(word, Mapping) and "start" in word and "end" in word for word in words)


def _timed(found: list[Any], where: str) -> list[Word]:
    pieces = []
    for row, entry in enumerate(found):
        values: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
        text: Any = values.get("word", values.get("text"))
        start: Any = values.get("start")
        end: Any = values.get("end")
        if not isinstance(text, str) or not _is_time(start) or not _is_time(end) or end < start:
            raise ValueError(
                f"entry {row + 1} of {where} should hold `word` (or `text`), `start` and `end` in seconds, "
                f"0 <= start <= end. Found {json.dumps(entry)[:80]}."
            )
        if plain := " ".join(text.split()):
            pieces.append(Word(plain, float(start), float(end)))
    return pieces


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0

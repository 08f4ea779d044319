"""Caption files: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

import html
import re

from equipoise.features.transcript import Word

_TIME = r"(?:(\d+):)?([0-5]?\d):([0-5]?\d)[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_INLINE = re.compile(rf"<{_TIME}>")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^}]*\}")


def parse_captions(text: str) -> list[Word]:
    """The pieces of a caption file that have a time of their own: whole captions, or words where times stand within.

    Markup and comments are left out. In files with times within captions a line that a caption repeats from the one
    before is left out too: captions that roll up are written so.

    Args:
        text: what stands in the file.

    Returns:
        Pieces of one word or more, in the order of the file; empty ones are left out.

    Raises:
        ValueError: no caption, or a time that can't be read; one line.
    """
    lines = text.splitlines()
    rolling = bool(_INLINE.search(text))
    pieces: list[Word] = []
    last = ""
    found = False
    number = 0
    while number < len(lines):
        if "-->" not in lines[number]:
            number += 1
            continue
        match = _TIMING.match(lines[number])
        if match is None:
            raise ValueError(f"line {number + 1}: no caption time: {lines[number].strip()[:60]!r}.")
        start, end = _seconds(*match.groups()[:4]), _seconds(*match.groups()[4:])
        if end < start:
            raise ValueError(f"line {number + 1}: a caption ends before it starts: {lines[number].strip()[:60]!r}.")
        found, number, shown = True, number + 1, []
        while number < len(lines) and lines[number].strip():
            shown.append(lines[number])
            number += 1
        if rolling and shown and _plain(shown[0]) == last:
            del shown[0]
        pieces += _pieces(" ".join(shown), start, end)
        last = _plain(shown[-1]) if shown else last
    if not found:
        raise ValueError("no caption with a time.")
    return pieces


def _pieces(text: str, start: float, end: float) -> list[Word]:
    """A caption, cut where times stand within it."""
    marks = list(_INLINE.finditer(text))
    times = [start, *(min(max(_seconds(*mark.groups()), start), end) for mark in marks), end]
    cuts = [0, *(mark.start() for mark in marks), len(text)]
    pieces = []
    for row in range(len(marks) + 1):
        plain = _plain(text[cuts[row] : cuts[row + 1]])
        if plain:
            pieces.append(Word(plain, times[row], max(times[row], times[row + 1])))
    return pieces


def _plain(text: str) -> str:
    return " ".join(html.unescape(_MARKUP.sub("", text)).split())


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")

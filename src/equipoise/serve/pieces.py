"""Pieces of a clip cut out of its features: a timeline for the price of one extraction."""

from __future__ import annotations

from dataclasses import replace

from equipoise.extraction.extracted import ExtractedClip
from equipoise.features.stream import FeatureStream
from equipoise.features.transcript import Transcript


def cut_clip(clip: ExtractedClip, start: float, end: float) -> ExtractedClip:
    """What a clip has from one moment to another; the piece begins at 0.

    A frame belongs to the piece in which the middle of what it describes lies, a word likewise. Where the times of
    words are not known, a piece that is not the whole clip has no transcript.

    Args:
        clip: any.
        start, end: seconds.
    """
    whole = start <= 0 and end >= clip.duration
    return ExtractedClip(
        id=clip.id,
        streams={name: _frames(stream, start, end) for name, stream in clip.streams.items()},
        transcript=clip.transcript if whole else _words(clip.transcript, start, end),
        duration=end - start,
    )


def _frames(stream: FeatureStream, start: float, end: float) -> FeatureStream:
    if stream.absent:
        return stream
    first, last = stream.times.searchsorted([start, end])
    if first == last:
        return replace(stream, values=stream.values[:0], times=stream.times[:0], absent="nothing in this piece")
    return replace(stream, values=stream.values[first:last], times=stream.times[first:last] - start)


def _words(transcript: Transcript | None, start: float, end: float) -> Transcript | None:
    if transcript is None or transcript.words is None:
        return None
    kept = tuple(
        replace(word, start=word.start - start, end=word.end - start)
        for word in transcript.words
        if start <= (word.start + word.end) / 2 < end
    )
    return replace(transcript, text=" ".join(word.text for word in kept), words=kept) if kept else None

"""An extracted clip as bytes, and back: what a confined process may have written is read without running any of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from equipoise.extraction.extracted import ExtractedClip
from equipoise.features.stream import FeatureStream
from equipoise.features.transcript import Transcript, Word


def pack(clip: ExtractedClip) -> tuple[bytes, bytes]:
    """A clip as JSON and, beside it, its arrays (safetensors)."""
    arrays = {}
    streams: dict[str, Any] = {}
    for name, stream in clip.streams.items():
        arrays[f"{name}.values"] = np.ascontiguousarray(stream.values, dtype=np.float32)
        arrays[f"{name}.times"] = np.ascontiguousarray(stream.times, dtype=np.float64)
        streams[name] = {"rate": stream.rate, "absent": stream.absent, "notes": stream.notes}
    told = {
        "id": clip.id,
        "streams": streams,
        "transcript": None if clip.transcript is None else asdict(clip.transcript),
        "duration": clip.duration,
        "facts": clip.facts,
        "notes": clip.notes,
    }
    return json.dumps(told).encode(), save(arrays)


def unpack(told: bytes, arrays: bytes) -> ExtractedClip:
    """The clip that `pack` made bytes of.

    Raises:
        ValueError: they are none, or describe what a clip can't be; one line.
    """
    try:
        content = json.loads(told)
        found = load(arrays)
        streams = {
            str(name): FeatureStream(
                _array(found[f"{name}.values"], np.float32),
                _array(found[f"{name}.times"], np.float64),
                float(each["rate"]),
                str(each["absent"]),
                _lines(each["notes"]),
            )
            for name, each in content["streams"].items()
        }
        return ExtractedClip(
            id=str(content["id"]),
            streams=streams,
            transcript=_transcript(content["transcript"]),
            duration=float(content["duration"]),
            facts=dict(content["facts"]),
            notes=_lines(content["notes"]),
        )
    except (KeyError, TypeError, AttributeError, RecursionError, SafetensorError, ValueError) as error:
        raise ValueError(f"These bytes are no extracted clip: {' '.join(str(error).split())[:200]}") from None


def _array(array: Any, dtype: Any) -> Any:
    if array.dtype != dtype:
        raise ValueError(f"an array of {array.dtype}")
    return array


def _transcript(content: Any) -> Transcript | None:
    if content is None:
        return None
    words = content["words"]
    found = None if words is None else tuple(_word(each) for each in words)
    return Transcript(str(content["text"]), found, str(content["origin"]), str(content["timing"]))


def _word(content: Any) -> Word:
    return Word(str(content["text"]), float(content["start"]), float(content["end"]))


def _lines(content: Any) -> tuple[str, ...]:
    return tuple(str(line) for line in content)

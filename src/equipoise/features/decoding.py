"""Frames of one track in order, whatever is broken in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from equipoise.features.clip import MediaError
from equipoise.features.container import audio_stream, import_av, open_container, origin, prepare, reason, video_stream
from equipoise.features.timestamps import Timestamps, may_jump

if TYPE_CHECKING:
    from equipoise.features.clip import Clip

Kind = Literal["audio", "video"]
_SEEKABLE = ("mov", "matroska", "avi", "wav", "flac", "ogg", "mpeg", "mpegts")  # with true timestamps after a jump
_STEPS = (1.0, 10.0, 60.0)  # seconds before the segment at which to look for a frame to start from
_ERRORS = 500  # in a row: then the track is given up


def decode_frames(clip: Clip, kind: Kind, *, lead: float) -> Iterator[tuple[float | None, Any]]:
    """The frames of a track from some point before the segment, to the end of the track.

    Args:
        clip: the clip; what goes wrong is added to its notes.
        kind: which track.
        lead: seconds before the segment from which a decoder has to run so that it is right at its start.

    Yields:
        Seconds of the file at which the frame starts (None where the file does not say), and PyAV's frame.

    Raises:
        MediaError: the track is there and no frame of it can be decoded.
    """
    seekable = clip.facts["container"].split(",")[0] in _SEEKABLE and not clip.facts["jumps"]
    steps: tuple[float, ...] = _STEPS if seekable else ()
    for back in (*steps, None):
        target = None if back is None or clip.start - back <= 0 else clip.start - back
        problems: list[str] = []
        frames = _frames(clip, kind, target, problems)
        first = next(frames, None)
        early = first is not None and first[0] is not None and first[0] <= clip.start - lead
        if target is None or early:
            break
    if first is None:
        raise MediaError(f"{clip.path} has {kind} of which nothing can be decoded{_because(problems)}.")
    yield from chain([first], frames)
    for problem in problems:
        clip.note(problem)


def _because(problems: list[str]) -> str:
    return f" ({problems[0]})" if problems else ""


def _frames(clip: Clip, kind: Kind, target: float | None, problems: list[str]) -> Iterator[tuple[float | None, Any]]:
    error_type = import_av().FFmpegError
    failed, in_row, says = 0, 0, ""
    midway = target is not None  # a jump may land between pictures that need those before it
    with open_container(clip.path) as container:
        stream = audio_stream(container) if kind == "audio" else video_stream(container)
        if stream is None:  # `facts` saw one: the file has changed since
            raise MediaError(f"{clip.path} has lost its {kind} since it was opened.")
        prepare(stream)
        zero = origin(container)
        timestamps = Timestamps(may_jump(container.format.name))
        if target is not None:
            try:
                container.seek(int((target + zero) * 1e6), backward=True)
            except error_type:
                return
        packets = container.demux(stream)
        while in_row < _ERRORS:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = packet.decode()
            except error_type as error:
                failed, in_row, says = failed + (not midway), in_row + 1, reason(error)
                packets = container.demux(stream)  # the old one ends with its error
                continue
            for frame in frames:
                in_row, midway, time = 0, False, getattr(frame, "time", None)
                yield None if time is None else timestamps.steady(time - zero), frame
    if timestamps.jumps:
        problems.append(f"{kind}: timestamps jump {timestamps.jumps} times; read on as if they did not")
    if failed:
        gave_up = "; given up there" if in_row >= _ERRORS else ""
        errors = "1 error" if failed == 1 else f"{failed} errors"
        problems.append(f"{kind}: {errors} of decoding ({says}){gave_up}")

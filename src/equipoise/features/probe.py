"""What a file says of itself before anything of it is used."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.features.clip import MediaError
from equipoise.features.container import MAX_PIXELS, audio_stream, open_container, origin, prepare, video_stream
from equipoise.features.orientation import upright_rotation
from equipoise.features.timestamps import Timestamps, may_jump

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

_MAX_HOURS = 24
# Their headers tell the duration; others have it guessed.
_EXACT = ("mov", "matroska", "avi", "wav", "w64", "flac", "ogg")
_FIRST_PACKETS = 200  # of a track: what they say of rotation and frame rate is taken for all of it


def probe(path: Path) -> dict[str, Any]:
    """The facts of :class:`equipoise.features.clip.Clip`.

    Raises:
        MediaError: it can't be used as a clip.
    """
    try:
        status = path.stat()
    except OSError:
        status = None
    stamp = (status.st_size, status.st_mtime_ns) if status else (0, 0)
    return deepcopy(_probe(path, *stamp))


@lru_cache(maxsize=64)  # the segments of a long recording ask again and again
def _probe(path: Path, size: int, modified: int) -> dict[str, Any]:
    with open_container(path) as container:
        audio, video = audio_stream(container), video_stream(container)
        if audio is None and video is None:
            found = ", ".join(sorted({stream.type for stream in container.streams})) or "no track"
            raise MediaError(f"{path} holds no audio and no moving pictures that can be decoded ({found}).")
        exact = container.format.name.split(",")[0] in _EXACT
        seconds, jumps = (container.duration / 1e6, 0) if exact and container.duration else _scan(path)
        if not 0 < seconds <= _MAX_HOURS * 3600:
            raise MediaError(f"{path} should last up to {_MAX_HOURS} hours. Found {seconds:.6g} s.")
        return {
            "container": container.format.name,
            "bytes": size,
            "duration": seconds,
            "jumps": jumps,
            "audio": None if audio is None else _audio_facts(audio),
            "video": None if video is None else _video_facts(path, container, video),
        }


def _audio_facts(stream: AudioStream) -> dict[str, Any]:
    context = stream.codec_context
    return {
        "codec": context.name,
        "rate": int(context.sample_rate or 0),
        "channels": int(context.channels or 0),
        "layout": context.layout.name,
    }


def _video_facts(path: Path, container: InputContainer, stream: VideoStream) -> dict[str, Any]:
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise MediaError(f"{path} has pictures of {context.width} x {context.height}; the limit is {MAX_PIXELS}.")
    # Some headers hold nonsense.
    aspect, rate = float(stream.sample_aspect_ratio or 1), float(stream.average_rate or 0)
    rotation, variable = _first_frames(container, stream)
    return {
        "codec": context.name,
        "width": int(context.width),
        "height": int(context.height),
        "frame_rate": rate if rate <= 1000 else 0.0,
        "variable": variable,
        "pixel_aspect": aspect if 0.1 <= aspect <= 10 else 1.0,
        "rotation": rotation,
    }


def _first_frames(container: InputContainer, stream: VideoStream) -> tuple[int, bool]:
    """Rotation, as the first picture tells it, and whether the gaps between the timestamps of the first frames differ.

    A file that can't be decoded has rotation 0; `pictures` will say why.
    """
    from av import FFmpegError

    prepare(stream)
    rotation: int | None = None
    times = []
    try:
        for packet in islice(container.demux(stream), _FIRST_PACKETS):
            if packet.pts is not None and packet.time_base is not None:
                times.append(float(packet.pts * packet.time_base))
            for frame in packet.decode() if rotation is None else ():
                rotation = upright_rotation(frame)
                break
    except FFmpegError:
        pass
    times.sort()
    gaps = sorted(after - before for before, after in pairwise(times))
    return rotation or 0, bool(gaps) and gaps[-1] > 1.5 * gaps[len(gaps) // 2]


def _scan(path: Path) -> tuple[float, int]:
    """Seconds to the end of the last packet, where the header does not tell, and how often timestamps jump."""
    from av import FFmpegError

    last = 0.0
    tracks: dict[int, Timestamps] = {}
    with open_container(path) as container:
        zero = origin(container)
        jumping = may_jump(container.format.name)
        try:
            for packet in container.demux():
                if packet.pts is None or packet.time_base is None or packet.stream.type not in ("audio", "video"):
                    continue
                length = float((packet.duration or 0) * packet.time_base)
                track = tracks.setdefault(packet.stream.index, Timestamps(jumping))
                last = max(last, track.steady(float(packet.pts * packet.time_base) - zero) + length)
        except FFmpegError:
            pass  # what lies behind the damage is found by nobody
    return last, sum(track.jumps for track in tracks.values())

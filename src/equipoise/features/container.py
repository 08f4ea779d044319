"""Media files opened and described, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.features.clip import MediaError
from equipoise.features.orientation import upright_rotation

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 2**26  # 8192 x 8192; a header that claims more would fill the memory
_MAX_HOURS = 24
# Formats that hold their own data: a playlist or a list of files would have other files and addresses opened.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,mxf,dv,ivf,nut,"
    "wav,w64,flac,mp3,ogg,aac,ac3,eac3,amr,aiff,caf,au"
)
_EXACT = (
    "mov",
    "matroska",
    "avi",
    "wav",
    "w64",
    "flac",
    "ogg",
)  # their headers tell the duration, others have it guessed
_FIRST_PACKETS = 200  # of a track: what they say of rotation and frame rate is taken for all of it


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A file, open for decoding in one thread.

    Raises:
        MediaError: no such file, or none that FFmpeg reads.
        ModuleNotFoundError: the extra ``extract`` is not installed.
    """
    av = import_av()
    if not path.is_file():
        raise MediaError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; a clip is one file.")
    try:
        # The prefix keeps a name like "a:b.mp4" from being read as a protocol.
        container = av.open(
            f"file:{path}",
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            options={"max_pixels": str(MAX_PIXELS)},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path} can't be opened as audio or video: {reason(error)}.") from error
    with container:
        yield container


def import_av() -> Any:
    """PyAV."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('Clips are decoded by PyAV: pip install "equipoise[extract]"') from error
    return av


def versions() -> dict[str, str]:
    """Name and version of PyAV and of the libraries of FFmpeg that it carries."""
    av = import_av()
    libraries = {
        name: ".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libavformat", "libswscale")
    }
    return {"pyav": str(av.__version__), **libraries}


def reason(error: Exception) -> str:
    """What a library says went wrong, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The audio track that players would choose; None if none can be decoded."""
    best = container.streams.best("audio")
    return best if best is not None and best.codec_context is not None else None  # type: ignore[return-value]


def video_stream(container: InputContainer) -> VideoStream | None:
    """The track of moving pictures that players would choose, no cover picture; None if none can be decoded."""
    from av.stream import Disposition

    best = container.streams.best("video")
    tracks = ([best] if best is not None else []) + list(container.streams.video)
    for track in tracks:
        if track.codec_context is not None and not track.disposition & Disposition.attached_pic:
            return track  # type: ignore[return-value]
    return None


def origin(container: InputContainer) -> float:
    """The timestamp in seconds that is the clip's zero. What lies before zero is the start-up of a codec."""
    return max(0.0, (container.start_time or 0) / 1e6)


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
        seconds = container.duration / 1e6 if exact and container.duration else _scan(path)
        if not 0 < seconds <= _MAX_HOURS * 3600:
            raise MediaError(f"{path} should last up to {_MAX_HOURS} hours. Found {seconds:.6g} s.")
        return {
            "container": container.format.name,
            "bytes": size,
            "duration": seconds,
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
    aspect = float(stream.sample_aspect_ratio or 1)
    rotation, variable = _first_frames(container, stream)
    return {
        "codec": context.name,
        "width": int(context.width),
        "height": int(context.height),
        "frame_rate": float(stream.average_rate or 0),
        "variable": variable,
        "pixel_aspect": aspect if 0.1 <= aspect <= 10 else 1.0,  # some headers hold nonsense
        "rotation": rotation,
    }


def _first_frames(container: InputContainer, stream: VideoStream) -> tuple[int, bool]:
    """Rotation, as the first picture tells it, and whether the gaps between the timestamps of the first frames differ.

    A file that can't be decoded has rotation 0; `pictures` will say why.
    """
    from av import FFmpegError

    stream.codec_context.thread_count = 1
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


def _scan(path: Path) -> float:
    """Seconds to the end of the last packet, where the header does not tell."""
    from av import FFmpegError

    last = 0.0
    with open_container(path) as container:
        zero = origin(container)
        video = video_stream(container)
        frame = 1 / float(video.average_rate) if video is not None and video.average_rate else 0.0
        try:
            for packet in container.demux():
                if packet.pts is None or packet.time_base is None or packet.stream.type not in ("audio", "video"):
                    continue
                # The demuxer of MPEG gives half a frame's duration.
                length = float((packet.duration or 0) * packet.time_base)
                length = max(length, frame) if packet.stream.type == "video" else length
                last = max(last, float(packet.pts * packet.time_base) + length - zero)
        except FFmpegError:
            pass  # what lies behind the damage is found by nobody
    return last

"""Media files opened and described, through PyAV."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.features.clip import MediaError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 2**26  # 8192 x 8192; a header that claims more would fill the memory
# Formats that hold their own data: a playlist or a list of files would have other files and addresses opened.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,mxf,dv,ivf,nut,"
    "wav,w64,flac,mp3,ogg,aac,ac3,eac3,amr,aiff,caf,au"
)


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
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError) as error:
        # What the list of formats lets not through is an argument that is refused.
        why = "its format is none of those that are read" if error.errno == errno.EINVAL else reason(error)
        raise MediaError(f"{path} can't be opened as audio or video: {why}.") from error
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


def prepare(stream: AudioStream | VideoStream) -> None:
    """Settings of the decoder, before its first frame."""
    stream.codec_context.thread_count = 1  # clips are decoded side by side
    if stream.type == "video":
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}


def origin(container: InputContainer) -> float:
    """The timestamp in seconds that is the clip's zero. What lies before zero is the start-up of a codec."""
    return max(0.0, (container.start_time or 0) / 1e6)

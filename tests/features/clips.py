"""Clips made with PyAV: sound and moving pictures whose content at each moment is known."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


def tone(seconds: float, rate: int = 16000, *, hertz: float = 440.0, level: float = 0.5) -> Sound:
    """``[n]``: a sine."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds: float, rate: int = 16000, *, seed: int = 0, level: float = 0.1) -> Sound:
    """``[n]``: white noise."""
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def voice(seconds: float, rate: int = 16000, *, pitch: float = 120.0, seed: int = 0) -> Sound:
    """``[n]``: pulses through three moving formants, in syllables: what a pitch tracker takes for a voice."""
    from scipy.signal import lfilter

    t = np.arange(round(seconds * rate)) / rate
    turns = np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.8 * t))) / rate
    sound = np.diff(np.floor(turns), prepend=0.0)
    sound = sound + 0.002 * np.random.default_rng(seed).standard_normal(len(t))
    for formant, width in ((600.0, 80.0), (1300.0, 100.0), (2600.0, 150.0)):
        radius, angle = np.exp(-np.pi * width / rate), 2 * np.pi * formant / rate
        sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
    sound = sound * np.clip(1.5 * np.sin(2 * np.pi * 2.0 * t), 0, 1)
    return np.asarray(0.5 * sound / max(1e-9, np.abs(sound).max()), np.float32)


def square(number: int, *, width: int = 160, height: int = 120) -> Image:
    """``[H, W, 3]``: a square that moves; the brightness of the lower half tells the number (`read_number`)."""
    image = np.full((height, width, 3), 16, np.uint8)
    left = number * 4 % (width - 32)
    image[8:40, left : left + 32] = (230, 60, 60)
    image[height // 2 :] = 40 + number % 16 * 12
    return image


def read_number(image: Image) -> int:
    """The number, modulo 16, of a picture of `square`."""
    return round((float(image[image.shape[0] * 3 // 4 :].mean()) - 40) / 12)


def moving(image: Image, number: int, *, width: int = 320, height: int = 240) -> Image:
    """``[H, W, 3]``: a smaller picture (a face) carried over a grey one, a little further each time."""
    canvas = np.full((height, width, 3), 90, np.uint8)
    room_x, room_y = width - image.shape[1], height - image.shape[0]
    x = round(room_x * (0.5 + 0.4 * np.sin(number / 9)))
    y = round(room_y * (0.5 + 0.4 * np.cos(number / 13)))
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


def write_clip(
    path: Path,
    *,
    audio: npt.NDArray[Any] | None = None,
    rate: int = 16000,
    pictures: Iterable[Image] | None = None,
    frame_rate: float | Fraction = 25,
    times: Sequence[float] | None = None,
    audio_start: float = 0.0,
    audio_codec: str = "aac",
    video_codec: str = "mpeg4",
    container: str | None = None,
    layout: str | None = None,
    key_every: int = 12,
    delay: float = 0.0,
) -> Path:
    """Write a clip.

    Args:
        path: its suffix tells the container, unless ``container`` does.
        audio: ``[n]`` or ``[channels, n]``, full scale at 1; None for no audio.
        rate: its sample rate.
        pictures: ``[H, W, 3]`` uint8 each, all of one size; None for none.
        frame_rate: pictures a second.
        times: seconds of each picture, for a frame rate that varies.
        audio_start: seconds at which the audio starts.
        audio_codec, video_codec: encoders of FFmpeg.
        layout: of the channels: mono or stereo by default, ``5.1`` for six.
        key_every: pictures from one key frame to the next.
        delay: seconds added to all timestamps.
    """
    with av.open(str(path), "w", format=container) as file:
        sound = None if audio is None else np.atleast_2d(np.asarray(audio, np.float32))
        # All streams before the first packet: the header is written with it.
        put_audio = put_video = None
        if sound is not None:
            put_audio = _audio_writer(file, sound, rate, audio_codec, layout, audio_start + delay)
        if pictures is not None:
            put_video = _video_writer(file, pictures, frame_rate, times, video_codec, key_every, delay)
        for put in (put_video, put_audio):
            if put is not None:
                put()
    return path


def _audio_writer(
    file: Any, sound: Sound, rate: int, codec: str, layout: str | None, start: float
) -> Callable[[], None]:
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
    stream = file.add_stream(codec, rate=rate, layout=layout)

    def put() -> None:
        size = 1024
        for at in range(0, sound.shape[1], size):
            part = np.ascontiguousarray(sound[:, at : at + size])
            if codec.startswith("pcm") or codec == "flac":
                packed = np.round(part.clip(-1, 1 - 2**-15) * 2**15).astype(np.int16).T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), format="s16", layout=layout)
            else:
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), at + round(start * rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))

    return put


def _video_writer(
    file: Any,
    pictures: Iterable[Image],
    frame_rate: float | Fraction,
    times: Sequence[float] | None,
    codec: str,
    key_every: int,
    delay: float,
) -> Callable[[], None]:
    rate = Fraction(frame_rate).limit_denominator(1001)
    stream = file.add_stream(codec, rate=rate)
    images = iter(pictures)
    first = next(images)
    stream.height, stream.width = first.shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.options = {"libx264": {"preset": "ultrafast"}, "libvpx": {"deadline": "realtime"}}.get(codec, {})
    stream.codec_context.thread_count = 1
    stream.codec_context.gop_size = key_every
    stream.codec_context.max_b_frames = 0
    stream.bit_rate = 2_000_000
    base = Fraction(1, 1000) if times is not None else 1 / rate
    stream.codec_context.time_base = base

    def put() -> None:
        image: Image | None = first
        number = 0
        while image is not None:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            at = number if times is None else round(times[number] * 1000)
            frame.time_base, frame.pts = base, at + round(delay / base)
            file.mux(stream.encode(frame))
            image, number = next(images, None), number + 1
        file.mux(stream.encode(None))

    return put


def rotate_mp4(path: Path, degrees: int) -> Path:
    """Have players turn the pictures of an MP4 clockwise, as phones do: only the header changes."""
    a, b, c, d = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    data = bytearray(path.read_bytes())
    at = -1
    while (at := data.find(b"tkhd", at + 1)) >= 0:
        matrix = at + 4 + (40 if data[at + 4] == 0 else 52)  # version 0 has times of 4 bytes, version 1 of 8
        one = 1 << 16
        data[matrix : matrix + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path

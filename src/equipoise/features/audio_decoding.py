"""The audio of a clip: one channel, one rate, no holes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from equipoise.features.clip import AudioBlock, MediaError
from equipoise.features.container import audio_stream, open_container, origin
from equipoise.features.decoding import decode_frames
from equipoise.features.resampling import Resampler, Samples

if TYPE_CHECKING:
    from equipoise.features.clip import Clip

_LEAD = 0.3  # seconds that a decoder needs to be right again after a jump (MP3's reservoir, AAC's overlap)
_TOLERANCE = 0.03  # seconds by which timestamps may wander from the count of samples before they are believed
_JUMP = 1.0  # seconds back, or behind the end, beyond which a timestamp is taken for wrong
_MAX_RATE = 384000
_LOUDEST = 1e4  # full scale is 1; beyond this powers would leave float32
_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "FLC": 0.7071, "FRC": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_SURROUND = 0.5

Chunk = tuple[int, Samples]  # number of the first sample, counted from time 0 of the file


def decode_audio(clip: Clip, rate: int) -> Iterator[AudioBlock]:
    """See :meth:`equipoise.features.clip.Clip.audio`."""
    if not clip.has_audio:
        return
    first, stop = round(clip.start * rate), round(_end(clip) * rate)
    count = 0
    for samples in _blocks(_filled(_resampled(clip, rate), first, stop, rate), rate):
        yield AudioBlock(count / rate, samples)
        count += len(samples)
    if first + count < stop - rate:
        clip.note(f"audio: ends at {(first + count) / rate:.2f} s of {clip.end:.2f} s")


def _end(clip: Clip) -> float:
    """The end of the segment or of the track: MP4 tells where a track ends, its codecs fill their last frame."""
    if not clip.facts["container"].startswith("mov"):
        return clip.end
    with open_container(clip.path) as container:
        stream = audio_stream(container)
        if stream is None or not stream.duration or stream.time_base is None:
            return clip.end
        end = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin(container)
        return min(clip.end, end)


def _resampled(clip: Clip, rate: int) -> Iterator[Chunk]:
    """Chunks at the new rate, each run of steady timestamps resampled for itself."""
    resampler: Resampler | None = None
    old, expected, shift = 0, 0, 0.0
    last = float(clip.facts["duration"]) + _JUMP
    for time, frame in decode_frames(clip, "audio", lead=_LEAD):
        if not 0 < frame.sample_rate <= _MAX_RATE:
            raise MediaError(f"{clip.path} should have a sample rate up to {_MAX_RATE}. Found {frame.sample_rate}.")
        now = expected / old if old else 0.0
        time = now if time is None else time + shift
        if old and not now - _JUMP <= time <= last:
            clip.note(f"audio: timestamps jump at {now:.2f} s; read on as if they did not")
            shift, time = shift + now - time, now
        at = round(time * frame.sample_rate)
        if resampler is None or frame.sample_rate != old or abs(at - expected) > _TOLERANCE * old:
            if resampler is not None:
                yield resampler.finish()
            resampler, old, expected = Resampler(frame.sample_rate, rate, at), frame.sample_rate, at
        samples = mono(frame)
        expected += len(samples)
        yield resampler.push(samples)
    if resampler is not None:
        yield resampler.finish()


def mono(frame: Any) -> Samples:
    """``[n]`` float32, full scale at 1: the channels by the weights of ITU-R BS.775, which here sum to 1."""
    values = frame.to_ndarray()
    names = [channel.name for channel in frame.layout.channels]
    if not frame.format.is_planar:
        values = values.reshape(-1, len(names)).T
    if np.issubdtype(values.dtype, np.integer):
        info = np.iinfo(values.dtype)
        middle = 0 if info.min < 0 else 2 ** (info.bits - 1)
        scale, values = 0.5 ** (info.bits - 1), values.astype(np.float64) - middle
    else:
        scale, values = 1.0, np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clip(-_LOUDEST, _LOUDEST)
    weights = [_WEIGHTS.get(name, _SURROUND) for name in names]
    if len(names) < 3 or not sum(weights):
        weights = [1.0] * len(names)
    # One channel after the other, so that the sum does not depend on how many samples a frame has.
    mixed = sum(
        weight * scale / sum(weights) * channel for weight, channel in zip(weights, values, strict=True) if weight
    )
    return np.asarray(mixed, dtype=np.float32)


def _filled(chunks: Iterable[Chunk], first: int, stop: int, rate: int) -> Iterator[Samples]:
    """The samples ``first`` to ``stop`` without a hole or a repetition, as far as there are some."""
    position = first
    for at, samples in chunks:
        while position < min(at, stop) and len(samples):
            zeros = min(at, stop, position + rate) - position
            yield np.zeros(zeros, dtype=np.float32)
            position += zeros
        part = samples[max(0, position - at) : max(0, stop - at)]
        if len(part):
            yield part
            position += len(part)
        if position >= stop:
            return


def _blocks(parts: Iterable[Samples], size: int) -> Iterator[Samples]:
    """The same samples in blocks of one size, and a last one."""
    held: list[Samples] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        while count >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held, count = [joined[size:]], count - size
    if count:
        yield np.concatenate(held)

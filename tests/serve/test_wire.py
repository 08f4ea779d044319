from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.extraction.extracted import ExtractedClip
from equipoise.features.stream import FeatureStream, no_frames
from equipoise.features.transcript import Transcript, Word
from equipoise.serve.wire import pack, unpack


def clip() -> ExtractedClip:
    random = np.random.default_rng(0)
    audio = FeatureStream(random.normal(size=(7, 3)).astype(np.float32), np.arange(7) / 10, 10.0, notes=("one", "two"))
    words = (Word("très", 0.0, 0.5), Word("bien\n", 0.5, 1.25))
    transcript = Transcript("très bien", words, "sidecar", "sidecar")
    streams = {"audio": audio, "vision": no_frames(4, "no face")}
    return ExtractedClip("clip é", streams, transcript, 0.7, {"audio": {"rate": 16000}}, ("a note",))


def test_there_and_back() -> None:
    made = clip()
    found = unpack(*pack(made))
    assert (found.id, found.transcript, found.duration, found.facts, found.notes) == (
        made.id,
        made.transcript,
        made.duration,
        made.facts,
        made.notes,
    )
    assert list(found.streams) == ["audio", "vision"]
    for name, stream in made.streams.items():
        other = found.streams[name]
        np.testing.assert_array_equal(other.values, stream.values)
        np.testing.assert_array_equal(other.times, stream.times)
        assert (other.rate, other.absent, other.notes) == (stream.rate, stream.absent, stream.notes)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_other_bytes_are_refused(told: bytes, arrays: bytes) -> None:
    with pytest.raises(ValueError, match="no extracted clip"):
        unpack(told, arrays)


@settings(max_examples=50)
@given(st.data())
def test_bytes_that_were_changed_give_a_clip_or_one_line(data: st.DataObject) -> None:
    told, arrays = map(bytearray, pack(clip()))
    broken = data.draw(st.sampled_from([told, arrays]))
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        found = unpack(bytes(told), bytes(arrays))
        assert all(np.isfinite(stream.values).all() for stream in found.streams.values())


def test_what_no_clip_can_have_is_refused() -> None:
    told, arrays = pack(clip())
    with pytest.raises(ValueError, match="no extracted clip"):
        unpack(told.replace(b'"no face"', b'""'), arrays)  # no frames and no reason
    with pytest.raises(ValueError, match="no extracted clip"):
        unpack(told.replace(b'"vision"', b'"smell"'), arrays)

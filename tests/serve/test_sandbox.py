from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import square, tone, write_clip
from tests.serve.models import sound_recipe

from equipoise.serve.limits import Limits
from equipoise.serve.sandbox import Refused, Sandbox

LIMITS = Limits(clip_seconds=5.0, worker_seconds=20.0)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    made = Sandbox(sound_recipe(), LIMITS)
    assert made.probe(tmp_path_factory.mktemp("probe"))["limits"]
    return made


def test_a_clip_comes_out_as_it_does_without_a_sandbox(sandbox: Sandbox, tmp_path: Path) -> None:
    from equipoise.extraction.clip_features import extract_clip

    path = write_clip(tmp_path / "upload.mp4", audio=tone(1.0), pictures=[square(i) for i in range(25)])
    found = sandbox.extract(path, id="mine", text="a good film")
    known = extract_clip(path, sound_recipe(), text="a good film", id="mine")
    np.testing.assert_array_equal(found.streams["audio"].values, known.streams["audio"].values)
    assert (found.id, found.transcript, found.facts) == (known.id, known.transcript, known.facts)
    assert found.duration == known.duration


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "upload"), (os.urandom(5000), "upload"), (b"\x00\x00\x00\x20ftypisom" + bytes(3000), "upload")],
)
def test_what_is_no_clip_is_refused_in_one_line(sandbox: Sandbox, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "upload.mp4").write_bytes(content)
    with pytest.raises(Refused, match=message) as refusal:
        sandbox.extract(tmp_path / "upload.mp4", id="x")
    assert refusal.value.code == "media"
    assert str(tmp_path) not in str(refusal.value)  # where uploads lie is nobody's business
    assert "\n" not in str(refusal.value)


def test_a_long_clip_is_refused_and_a_segment_of_it_is_not(sandbox: Sandbox, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "upload.wav", audio=tone(6.0), audio_codec="pcm_s16le")
    with pytest.raises(Refused, match="the clip is 6 s long, and at most 5 s are scored here") as refusal:
        sandbox.extract(path, id="x")
    assert refusal.value.code == "media"
    assert sandbox.extract(path, id="x", start=1.0, end=3.0).duration == 2.0


def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "upload.flac", audio=np.zeros(1800 * 8000), rate=8000, audio_codec="flac")
    hasty = Sandbox(sound_recipe(), Limits(worker_seconds=1.0, clip_seconds=4000.0))
    since = time.monotonic()
    with pytest.raises(Refused, match="takes more than 1 s") as refusal:
        hasty.extract(path, id="x")
    assert refusal.value.code == "timeout"
    assert time.monotonic() - since < 10


def test_a_process_that_takes_too_much_memory_is_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "upload.flac", audio=tone(60.0), audio_codec="flac")
    tight = Sandbox(sound_recipe(), Limits(worker_mb=1))
    with pytest.raises(Refused) as refusal:
        tight.extract(path, id="x")
    assert refusal.value.code == "memory"


def test_the_server_is_at_fault_where_its_libraries_are(tmp_path: Path) -> None:
    from dataclasses import replace

    path = write_clip(tmp_path / "upload.wav", audio=tone(0.5), audio_codec="pcm_s16le")
    other = replace(sound_recipe(), audio={"name": "no-such-extractor"})
    with pytest.raises((Refused, RuntimeError), match="no-such-extractor"):
        Sandbox(sound_recipe(), LIMITS).extract(path, id="x", recipe=other)


def test_closing_ends_what_is_under_way_and_starts_nothing_more(tmp_path: Path) -> None:
    sandbox = Sandbox(sound_recipe(), Limits())
    path = write_clip(tmp_path / "upload.wav", audio=np.tile(tone(1.0), 500), audio_codec="pcm_s16le")
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(sandbox.extract, path, id="long")
        while not sandbox.running:
            assert not under_way.done()
            time.sleep(0.001)
        sandbox.close()
        with pytest.raises(Refused, match="SIGKILL"):
            under_way.result(timeout=30)
    assert sandbox.running == 0
    with pytest.raises(RuntimeError, match="ends"):
        sandbox.extract(path, id="late")

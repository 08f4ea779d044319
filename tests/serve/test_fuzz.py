"""Damaged clips and bodies: each is answered, nothing hangs, nothing stays. EQUIPOISE_FUZZ=1000 sends a thousand."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from tests.features.clips import square, voice, write_clip
from tests.serve.running import Running

COUNT = int(os.environ.get("EQUIPOISE_FUZZ", "8"))
ANSWERS = {200, 400, 413, 415, 422}


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, a part cut out, put twice or overwritten, or the end missing."""
    found = bytearray(content)
    for _ in range(int(random.integers(1, 6))):
        at, length = int(random.integers(0, len(found))), int(random.integers(1, 400))
        kind = int(random.integers(0, 5))
        if kind == 0:
            found[at] = int(random.integers(0, 256))
        elif kind == 1 and len(found) > 2000:
            del found[at : at + length]
        elif kind == 2:
            found[at:at] = found[at : at + length]
        elif kind == 3:
            found[at : at + length] = random.bytes(len(found[at : at + length]))
        elif len(found) > 2000:
            del found[max(1000, at) :]
    return bytes(found)


def sources(folder: Path) -> list[Path]:
    pictures = [square(i, width=96, height=64) for i in range(12)]
    sound = voice(0.5, 48000)
    return [
        write_clip(folder / "a.mp4", audio=sound, rate=48000, pictures=pictures),
        write_clip(
            folder / "a.webm", audio=sound, rate=48000, pictures=pictures, audio_codec="libopus", video_codec="libvpx"
        ),
        write_clip(folder / "a.avi", audio=sound, rate=48000, pictures=pictures, audio_codec="mp2"),
        write_clip(folder / "a.ts", audio=sound, rate=48000, pictures=pictures),
        write_clip(folder / "a.wav", audio=sound, rate=48000, audio_codec="pcm_s16le"),
        write_clip(folder / "a.flac", audio=sound, rate=48000, audio_codec="flac"),
    ]


def test_damaged_clips(server: Running, tmp_path: Path) -> None:
    clips = [(path.name, path.read_bytes()) for path in sources(tmp_path)]

    def send(number: int) -> int:
        name, content = clips[number % len(clips)]
        random = np.random.default_rng(number)
        with httpx.Client(base_url=server.address, timeout=180) as client:
            answer = client.post("/api/clips?wait=60", files={"clip": (name, damaged(content, random))})
        assert answer.status_code in ANSWERS, (number, answer.text)
        message = (answer.json().get("error") or {"message": ""})["message"]
        assert "\n" not in message
        assert str(server.scratch) not in message
        return answer.status_code

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(send, range(COUNT)))
    assert 200 in found  # some are still clips
    assert server.left() == []
    assert server.service.waiting == 0


def test_damaged_bodies(server: Running, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", audio=voice(0.1), audio_codec="pcm_s16le")
    request = httpx.Request(
        "POST",
        server.address,
        data={"text": "a good film", "words": "true"},
        files={"clip": ("a.wav", path.read_bytes())},
    )
    body, kind = request.read(), request.headers["content-type"]
    head = body[: 4 * 120]

    def send(number: int) -> None:
        random = np.random.default_rng(number)
        broken = bytearray(head + body[len(head) :])
        for _ in range(int(random.integers(1, 8))):
            broken[int(random.integers(0, len(head)))] = int(random.integers(0, 256))
        content = bytes(broken) if number % 3 else damaged(body, random)
        with httpx.Client(base_url=server.address, timeout=180) as client:
            answer = client.post("/api/clips?wait=60", content=content, headers={"Content-Type": kind})
        assert answer.status_code in ANSWERS, (number, answer.text)
        assert "status" in answer.json() or answer.json()["error"]["message"]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(send, range(COUNT)))
    assert server.left() == []
    assert server.client.get("/health").json() | {"confined": 0} == {"status": "ok", "queue": 0, "confined": 0}

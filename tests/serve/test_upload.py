from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.serve.limits import Limits
from equipoise.serve.upload import BadUpload, Upload, clean_name, read_upload

WAVE = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(3000)
LIMITS = Limits(upload_mb=1, text_length=100, upload_seconds=1.0)


async def pieces_of(pieces: Sequence[bytes], pause: float = 0.0) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(pause)
        yield piece


def read(pieces: Sequence[bytes], content_type: str, folder: Path, pause: float = 0.0) -> Upload:
    return asyncio.run(read_upload(pieces_of(pieces, pause), content_type, folder, LIMITS))


def form(
    fields: dict[str, str] | None = None, files: Sequence[tuple[str, tuple[str, bytes]]] = ()
) -> tuple[bytes, str]:
    """The body that a client of its own makes, and its header."""
    given = [*files] or [("nothing", ("", b""))]
    request = httpx.Request("POST", "http://a", data=fields or {}, files=given)
    return request.read(), request.headers["content-type"]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 400), max_size=8), st.text(max_size=25))
def test_a_form_is_read_the_same_however_it_is_cut(cuts: list[int], text: str) -> None:
    body, kind = form({"text": text, "level": "0.9"}, [("clip", ("é a.WAV", WAVE))])
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(body[at : at + cut])
        at += cut
    with TemporaryDirectory() as folder:
        found = read([*pieces, body[at:]], kind, Path(folder))
        assert found.fields == {"text": text, "level": "0.9"}
        assert found.path == Path(folder) / "upload.wav"
        assert found.path.read_bytes() == WAVE
        assert found.name == "é a.WAV"


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("../../etc/x.mp4", ".mp4"),
        ("C:\\a\\b.MOV", ".mov"),
        ("a.sh;rm -rf", ""),
        ("x.mp4\x00.sh", ".sh"),
        ("..", ""),
        ("/", ""),
        ("a." + "b" * 50, ""),
    ],
)
def test_a_name_can_not_leave_its_folder(tmp_path: Path, name: str, ending: str) -> None:
    boundary = b"xyz"
    head = b'--xyz\r\nContent-Disposition: form-data; name="clip"; filename="' + name.encode() + b'"\r\n\r\n'
    found = read([head, WAVE, b"\r\n--xyz--\r\n"], f"multipart/form-data; boundary={boundary.decode()}", tmp_path)
    assert found.path == tmp_path / f"upload{ending}"
    assert [path.name for path in tmp_path.iterdir()] == [f"upload{ending}"]
    assert "/" not in found.name
    assert found.name.isprintable()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (form({"text": "x" * 401}), 413, "too_large"),
        (form({}, [("clip", ("a.wav", WAVE + bytes(2**20)))]), 413, "too_large"),
        (form({}, [("clip", ("a.wav", WAVE)), ("clip", ("b.wav", WAVE))]), 400, "form"),
        (form({}, [("other", ("a.wav", WAVE))]), 400, "form"),
        (form({}, [("clip", ("a.wav", b""))]), 400, "empty"),
        (form({}, [("clip", ("a.wav", b"#EXTM3U\n"))]), 415, "not_media"),
        (form({}, [("clip", ("a.wav", b"#EXTM3U\n" * 1000))]), 415, "not_media"),
        (form({f"field{i}": "x" for i in range(20)}), 400, "form"),
        ((b"a=b", "application/x-www-form-urlencoded"), 415, "form"),
        ((b"{}", "application/json"), 415, "form"),
        ((b"", ""), 415, "form"),
        ((b"--x\r\nnonsense", "multipart/form-data; boundary=x"), 400, "form"),
        ((b"", "multipart/form-data; boundary=x"), 400, "form"),
        (
            (b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhalf', "multipart/form-data; boundary=x"),
            400,
            "form",
        ),
        ((b"--x\r\nA: " + b"b" * 10_000 + b"\r\n", "multipart/form-data; boundary=x"), 400, "form"),
    ],
)
def test_bodies_that_are_not_taken(tmp_path: Path, body: tuple[bytes, str], status: int, code: str) -> None:
    with pytest.raises(BadUpload) as refusal:
        read([body[0]], body[1], tmp_path)
    assert (refusal.value.status, refusal.value.code) == (status, code)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_clip_is_refused_before_the_rest_is_read(tmp_path: Path) -> None:
    body, kind = form({}, [("clip", ("a.wav", b"MZ" * 400))])
    read_so_far = []

    async def slowly() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 100):
            read_so_far.append(at)
            yield body[at : at + 100]

    with pytest.raises(BadUpload):
        asyncio.run(read_upload(slowly(), kind, tmp_path, LIMITS))
    assert read_so_far[-1] < 800


def test_a_slow_body_is_given_up(tmp_path: Path) -> None:
    body, kind = form({"text": "a"})
    with pytest.raises(BadUpload) as refusal:
        read([bytes([each]) for each in body], kind, tmp_path, pause=0.2)
    assert refusal.value.status == 408


@settings(max_examples=30)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_form_or_one_refusal(noise: bytes) -> None:
    body, kind = form({"text": "hello"}, [("clip", ("a.wav", WAVE))])
    with TemporaryDirectory() as folder:
        for mixed in (noise, b"--x\r\n" + noise, body[:120] + noise + body[120:]):
            with suppress(BadUpload):
                read([mixed], kind if mixed[:2] != b"--" else "multipart/form-data; boundary=x", Path(folder))
            for path in Path(folder).iterdir():
                path.unlink()


def test_names_are_one_plain_line() -> None:
    assert clean_name("a\r\nb\u202e.mp4") == "ab.mp4"
    assert clean_name("x" * 500) == "x" * 200

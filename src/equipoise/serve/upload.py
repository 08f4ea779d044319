"""The body of an upload, read as it comes: the clip to a file, the fields to memory, neither beyond its bound."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from equipoise.serve.limits import Limits
from equipoise.serve.media_kind import HEAD, media_kind

_FIELDS = 16


class BadUpload(ValueError):
    """A body that is not taken: an HTTP status, a code, and one line."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Upload:
    """What a body held.

    Attributes:
        fields: texts by name.
        path: the clip; None without one.
        name: of the clip, as its sender calls it.
    """

    fields: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
    name: str = ""


async def read_upload(body: AsyncIterator[bytes], content_type: str, folder: Path, limits: Limits) -> Upload:
    """Read a body of ``multipart/form-data``: one file named ``clip``, and text fields.

    Args:
        body: in pieces.
        content_type: the header.
        folder: an empty one; the clip goes there.
        limits: of size and time.

    Raises:
        BadUpload: the body is too large or too slow, no such form, or its file is no clip.
    """
    form = _Form(folder, limits)
    try:
        await asyncio.wait_for(_read(body, content_type, form, limits.upload_bytes), limits.upload_seconds)
    except asyncio.TimeoutError:
        raise BadUpload(408, "slow", f"The upload took more than {limits.upload_seconds:.0f} s.") from None
    except MultipartParseError:
        raise BadUpload(400, "form", "The body is no multipart/form-data as its header says.") from None
    finally:
        form.close()
    return form.upload()


def clean_name(name: str) -> str:
    """A file's name as a line of plain text, without folders.

    >>> clean_name("C:\\\\clips/évening\\r\\n.mp4")
    'évening.mp4'
    """
    bare = PurePath(name.replace("\\", "/")).name
    return "".join(c for c in bare if unicodedata.category(c)[0] != "C")[:200]


async def _read(body: AsyncIterator[bytes], content_type: str, form: _Form, most: int) -> None:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadUpload(415, "form", "Send multipart/form-data with the clip as its field `clip`.")
    parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
    read = 0
    async for piece in body:
        read += len(piece)
        if read > most:
            raise too_large(most)
        parser.write(piece)
    if not form.whole:
        raise BadUpload(400, "form", "The body ends before its form does.")


def too_large(most: int) -> BadUpload:
    """The refusal of a body above ``most`` bytes."""
    return BadUpload(413, "too_large", f"An upload may be {most // 2**20} MiB at most.")


class _Form:
    """Takes the parts of a form as a parser finds them."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits, self.whole = folder, limits, False
        self._fields: dict[str, bytearray] = {}
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._field: bytearray | None = None
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._name = ""
        self._head = bytearray()
        self._known = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._grow(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._grow(self._value, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._start,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def upload(self) -> Upload:
        fields = {name: value.decode("utf-8", errors="replace") for name, value in self._fields.items()}
        return Upload(fields, self._path, self._name)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._disposition = b""

    def _grow(self, held: bytearray, piece: bytes) -> None:
        held += piece
        if len(held) > 4096:
            raise BadUpload(400, "form", "A header of the form is too long.")

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _start(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", errors="replace")
        if name == "clip" or b"filename" in options:
            self._start_file(name, options.get(b"filename", b"").decode("utf-8", errors="replace"))
            return
        if name in self._fields or len(self._fields) >= _FIELDS or not name or len(name) > 64:
            raise BadUpload(400, "form", "A field of the form has no name, stands twice, or is one too many.")
        self._field = self._fields[name] = bytearray()

    def _start_file(self, name: str, filename: str) -> None:
        if name != "clip" or self._path is not None:
            raise BadUpload(400, "form", "Send one file, as the field `clip`.")
        self._name = clean_name(filename) or "clip"
        ending = PurePath(self._name).suffix.lower()
        plain = ending[1:].isascii() and ending[1:].isalnum() and len(ending) < 7
        self._path = self.folder / ("upload" + (ending if plain else ""))
        self._file = self._path.open("xb")

    def _take(self, piece: bytes) -> None:
        if self._file is not None:
            self._file.write(piece)
            if not self._known:
                self._head += piece[: HEAD - len(self._head)]
                if len(self._head) >= HEAD:
                    self._recognise()
        elif self._field is not None:
            self._field += piece
            if len(self._field) > 4 * self.limits.text_length:  # bytes of one character in UTF-8
                raise BadUpload(413, "too_large", f"A text may have {self.limits.text_length} characters at most.")

    def _end(self) -> None:
        if self._file is not None:
            if not self._known:
                self._recognise()
            self.close()
        self._field = None

    def _recognise(self) -> None:
        self._known = True
        if not self._head:
            raise BadUpload(400, "empty", "The clip is empty.")
        if media_kind(bytes(self._head)) is None:
            raise BadUpload(415, "not_media", "The file does not begin as any kind of audio or video.")

    def _finish(self) -> None:
        self.whole = True

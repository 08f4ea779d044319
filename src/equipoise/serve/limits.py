"""What a server takes on, and what it refuses: all of it, as one value."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server. Its disk holds at most ``(queue + workers + 1) * 2 * upload_mb``.

    Attributes:
        upload_mb: MiB of one request's body.
        upload_seconds: until a body has to be here.
        clip_seconds: of media that are scored; longer clips are refused.
        text_length: characters of a transcript that comes with a clip.
        queue: clips that are uploaded or wait; further ones are refused with 503.
        workers: clips that are decoded at once, each in a process of its own.
        worker_seconds: of wall clock until such a process is killed.
        worker_mb: MiB of address space that it may take beyond its libraries.
        rate: uploads a minute and client address, further ones are refused with 429; 0 for any number.
        kept: results that are remembered.
        kept_seconds: for how long.
        batch: clips in one forward pass.
    """

    upload_mb: int = 200
    upload_seconds: float = 120.0
    clip_seconds: float = 600.0
    text_length: int = 20_000
    queue: int = 64
    workers: int = 2
    worker_seconds: float = 120.0
    worker_mb: int = 1024
    rate: int = 30
    kept: int = 256
    kept_seconds: float = 900.0
    batch: int = 16

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value, least = getattr(self, name), 0 if name == "rate" else 1
            if value < least:
                raise ValueError(f"Parameter `{name}` should be {least} or more. Found `{name} = {value}`.")

    @property
    def upload_bytes(self) -> int:
        """Bytes of one request's body."""
        return self.upload_mb * MEBIBYTE

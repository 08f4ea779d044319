"""Memory that a step frees stays with the process for the next step."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_NEVER, _MMAP_USUAL, _TRIM_USUAL = (
    -1,
    2**25,
    2**26,
)  # where glibc's own end up


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """What is freed inside, in blocks below 32 MiB, goes back to the operating system at the end and not before.

    glibc would hand back whatever lies free at the end of its heap as soon as that is large, which after each step it
    is, and the kernel would clear it anew page by page. Larger blocks are mapped and handed back one by one, as ever:
    on the heap, aligned as torch asks for them, they might not fit where others were. Without glibc (macOS, Windows,
    musl) nothing happens, and an allocator that is preloaded, such as jemalloc, has rules of its own.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _MMAP_USUAL)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_USUAL)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - raises where the library is another
    except (AttributeError, OSError, TypeError):
        return None
    return libc

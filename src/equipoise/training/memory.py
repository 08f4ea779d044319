"""Memory that a step frees stays with the process for the next step."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_ONE_GIB, _NEVER = 2**30, -1
_MMAP_USUAL, _TRIM_USUAL = 2**25, 2**26  # where glibc's own thresholds end once large blocks have been freed


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Blocks below 1 GiB that are freed inside go back to the process, and to the operating system at the end.

    glibc maps every block above 32 MiB anew, such as the gradient of a wide layer, and the kernel then clears it page
    by page: three tenths of TFN's step. Without glibc (macOS, Windows, musl) nothing happens. An allocator that is
    preloaded, such as jemalloc, has rules of its own and is not touched.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _ONE_GIB)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _MMAP_USUAL)
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_USUAL)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - raises where the library is another
    except (AttributeError, OSError, TypeError):
        return None
    return libc

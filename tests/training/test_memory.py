"""Freed memory is used again while a run trains, and handed back afterwards."""

from __future__ import annotations

import ctypes
import multiprocessing
import platform
import resource
from pathlib import Path

import pytest
import torch

from equipoise.training.memory import freed_memory_kept

PAGES = 4 * 24 * 2**20 // resource.getpagesize()
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc: it has no mallopt")


def _faults() -> int:
    """Pages that the kernel hands out for four blocks of 24 MiB, written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(6 * 2**20) for _ in range(4)]
    blocks.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def _measure() -> dict[str, int]:
    torch.set_num_threads(1)
    _faults()
    found = {"before": _faults(), "resident before": _resident()}
    with freed_memory_kept():
        # A block that something small was put beside may not fit again: most do.
        found |= {"inside": min(_faults() for _ in range(8)), "resident inside": _resident()}
    return found | {"resident after": _resident(), "after": _faults()}


@glibc
def test_memory_is_used_again_inside_and_handed_back_at_the_end() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # what this process has freed before would count
        found = pool.apply(_measure)
    for when in ("before", "after"):
        assert found[when] >= PAGES // 512, found  # one fault a page, or one for 512 where pages are huge
    assert found["inside"] <= PAGES // 1000, found
    assert found["resident inside"] - found["resident before"] >= PAGES * 0.9, found
    assert found["resident after"] - found["resident before"] <= PAGES * 0.1, found


@glibc
def test_an_error_inside_passes_and_hands_memory_back_too() -> None:
    with pytest.raises(KeyError, match="lost"), freed_memory_kept():
        raise KeyError("lost")
    _faults()
    assert _faults() >= PAGES // 512


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def musl(_: None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", musl)
    with freed_memory_kept():
        assert torch.ones(3).sum() == 3

"""Workers are forked, so that they know the extractors that a test adds, and start at once."""

from __future__ import annotations

import gc
import multiprocessing
import sys
from collections.abc import Iterator
from multiprocessing.context import BaseContext

import pytest
from tests.extraction import extractors

from equipoise.experiments import local_engine
from equipoise.extraction import clip_features
from equipoise.features.extractors import EXTRACTORS


def _fork() -> BaseContext:
    gc.collect()
    gc.freeze()  # a frame of the parent's that a child collects would wait there for threads that it does not have
    return multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(local_engine, "_forkserver", _fork)
    monkeypatch.setitem(sys.modules, "equipoise.features.brightness", extractors)
    monkeypatch.setitem(EXTRACTORS, "brightness", ("vision", "brightness", "Brightness"))
    yield
    gc.unfreeze()
    for kept in (clip_features._checked, clip_features._extractors, clip_features._recogniser):
        kept.cache_clear()

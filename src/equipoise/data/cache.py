"""Features that are computed once for a dataset and kept beside it."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.ragged import Array, RaggedSummary, write_ragged

_META = "meta.json"


def describe_sequences(summary: RaggedSummary, extractor: str | None) -> dict[str, Any]:
    """The fields of a `ModalityInfo`."""
    present = summary.lengths[summary.lengths > 0]
    return {
        "dim": summary.dim,
        "dtype": summary.dtype,
        "frames": int(present.sum()),
        "shortest": int(present.min()),
        "mean": float(present.mean()),
        "longest": int(present.max()),
        "missing": len(summary.lengths) - len(present),
        "repaired": summary.repaired,
        "extractor": extractor,
    }


def make_folder(building: Path, *, called: Path, why: str = "") -> None:
    """Make the hidden folder that takes the name ``called`` when it is whole; errors name that, and say ``why``."""
    try:
        building.mkdir(parents=True)
    except OSError as error:
        raise type(error)(error.errno, f"{error.strerror}{why}", str(called)) from None


def derive(
    cache: Path, key: str, source: Sequence[str], samples: int, compute: Callable[[], Iterable[Array]]
) -> tuple[Path, dict[str, Any]]:
    """Folder and description of the sequences under ``key``, computed unless they are there for this very source.

    A result is written to a folder of its own and renamed when whole, so one that was cut short is never read, and two
    processes that compute the same end with one result.
    """
    fingerprint = hashlib.sha256(json.dumps(source).encode()).hexdigest()
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", key)[:60].strip(".")
    folder = cache / f"{slug}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if found := _read(folder, fingerprint):
        return folder, found
    building = cache / f".{folder.name}.{uuid.uuid4().hex}"
    make_folder(building, called=folder, why="; what is computed from a dataset is kept in its folder")
    try:
        arrays = iter(compute())
        head = []  # up to the first sequence that isn't missing: it tells token ids from features
        for array in arrays:
            head.append(np.asarray(array))
            if head[-1].size:
                break
        tokens = bool(head) and head[-1].ndim == 1 and head[-1].dtype.kind in "iu"
        summary = write_ragged(
            building, "frames", itertools.chain(head, arrays), samples, what=f"What {key!r} computes", tokens=tokens
        )
        info = describe_sequences(summary, key)
        (building / _META).write_text(json.dumps({"source": fingerprint, "info": info}), encoding="utf-8")
        _move(building, folder, fingerprint)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder, info


def _read(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if meta.get("source") != fingerprint:
        return None
    info: dict[str, Any] = meta["info"]
    return info


def _move(building: Path, folder: Path, fingerprint: str) -> None:
    for _ in range(3):
        if folder.exists():  # stale, or broken: out of the way under a name that nobody reads
            away = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            folder.rename(away)
            shutil.rmtree(away, ignore_errors=True)
        try:
            building.rename(folder)
            return
        except OSError:
            if _read(folder, fingerprint):  # another process was faster with the same result
                return
    raise DataError(f"{folder} can't be replaced. Remove it and run again.")

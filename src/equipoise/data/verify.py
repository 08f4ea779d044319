"""Check a dataset on disk against its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.labels import check_labels
from equipoise.data.manifest import Manifest, ModalityInfo, sha256
from equipoise.data.ragged import Ragged, load_small
from equipoise.data.samples import check_samples, count_splits, read_samples

_PIECE = 64  # rows read at a time


def verify(folder: Path, manifest: Manifest) -> list[str]:
    """One line a finding: missing or changed files, and what files say against the layout or the manifest."""
    findings = []
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            findings.append(f"{name}: missing.")
        elif sha256(path) != expected:
            findings.append(f"{name}: changed since it was written (its SHA-256 differs from the manifest's).")
    checks: list[Callable[[], None]] = [lambda: _check_table(folder, manifest)]
    for stem in ("labels", *(f"labels.{name}" for name in manifest.unimodal)):
        checks.append(lambda stem=stem: _check_labels(folder, stem, manifest))  # type: ignore[misc]
    for name, info in manifest.modalities.items():
        if f"{name}.npy" in manifest.files:
            checks.append(lambda name=name, info=info: _check_sequences(folder, name, info, manifest.samples))  # type: ignore[misc]
    for check in checks:
        try:
            check()
        except FileNotFoundError:
            pass  # named above
        except DataError as error:
            findings.append(str(error))
    return findings


def _check_table(folder: Path, manifest: Manifest) -> None:
    columns = read_samples(folder, manifest.columns, manifest.samples)
    check_samples(columns, manifest.samples)
    counts = count_splits(columns["split"])
    if counts != manifest.splits:
        raise DataError(f"samples.csv: the splits have {counts} samples. The manifest says {manifest.splits}.")


def _check_labels(folder: Path, stem: str, manifest: Manifest) -> None:
    check_labels(load_small(folder / f"{stem}.npy"), manifest.labels, manifest.samples, stem)


def _check_sequences(folder: Path, name: str, info: ModalityInfo, samples: int) -> None:
    ragged = Ragged(folder, name)
    offsets = ragged.offsets
    if len(offsets) != samples + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != info.frames:
        raise DataError(f"{name}.offsets.npy should rise from 0 to {info.frames} in {samples} steps. It doesn't.")
    for start in range(0, samples, _PIECE):
        frames = ragged.flat(np.arange(start, min(start + _PIECE, samples)))
        if frames.dtype != info.dtype or frames.shape[1:] != ((info.dim,) if info.dim else ()):
            raise DataError(
                f"{name}.npy should hold {info.dtype} frames of {info.dim}. Found {frames.dtype} {frames.shape[1:]}."
            )
        if not np.isfinite(frames).all():
            raise DataError(f"{name}.npy should be finite. Found NaN or infinity after row {start}.")

"""Write a canonical dataset: checked, streamed, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from equipoise.data import manifest as manifests
from equipoise.data.cache import describe_sequences, make_folder
from equipoise.data.dataset import Dataset, load
from equipoise.data.errors import DataError
from equipoise.data.labels import check_labels, describe_labels
from equipoise.data.manifest import Manifest, ModalityInfo, Scale, Task
from equipoise.data.ragged import Array, write_ragged
from equipoise.data.samples import FILENAME, check_samples, count_splits, write_samples

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full, in one way or another


def write_dataset(
    path: str | PathLike[str],
    *,
    name: str,
    source: str,
    task: Task,
    modalities: Mapping[str, Iterable[Array]],
    labels: Array,
    ids: Sequence[str],
    splits: Sequence[str],
    label_range: tuple[float, float] | None = None,
    classes: Sequence[str] | None = None,
    scale: Scale | None = None,
    target_names: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    speakers: Sequence[str] | None = None,
    unimodal_labels: Mapping[str, Array] | None = None,
    extractor: Mapping[str, str] | None = None,
    synthetic: bool = False,
    extra: Mapping[str, object] | None = None,
    arrays: Mapping[str, Array] | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Check and write a dataset directory; it appears under ``path`` when it is whole.

    Args:
        path: the directory to make.
        name: short name for tables.
        source: where the data came from: a file, a corpus, ``synthetic``.
        task: ``regression`` or ``classification``.
        modalities: one ``[T, d]`` (or ``[d]``, one frame) array a sample in row order, stored as ``float32``; an array
            of size 0 where the sample lacks the modality. Any iterable: it is read once, one array at a time. NaN and
            infinities become 0, a missing value before any normalisation, and are counted in the manifest.
        labels: ``[N]`` or ``[N, R]`` values, or ``[N]`` class indices.
        ids: ``[N]``, each once.
        splits: ``[N]``: train, valid or test; train not empty.
        label_range: least and greatest label allowed; ``scale`` implies its own.
        classes: names of the classes; numbered by default.
        scale: whose rounding and thresholds the metrics use: ``mosi`` in [-3, 3], ``sims`` in [-1, 1].
        target_names: names of the R targets.
        texts: transcripts. With them ``modalities`` may be empty.
        groups: source video of each sample.
        speakers: speaker of each sample.
        unimodal_labels: labels of single modalities, as ``labels``.
        extractor: what made the features of a modality.
        synthetic: whether the data were generated.
        extra: further JSON values for the manifest.
        arrays: further arrays, one row a sample.
        overwrite: replace a dataset that is there; a directory of anything else is never touched.

    Raises:
        DataError: the data break a rule, or ``path`` exists; one line, and nothing is written.
        OSError: the disk failed or is full; nothing is left behind.
    """
    labels = np.asarray(labels)
    info = describe_labels(labels, task, label_range=label_range, classes=classes, scale=scale, targets=target_names)
    samples = len(labels)
    stored = {"labels": check_labels(labels, info, samples)}
    for modality, values in (unimodal_labels or {}).items():
        stored[f"labels.{modality}"] = check_labels(np.asarray(values), info, samples, f"unimodal_labels[{modality!r}]")
    for key, values in (arrays or {}).items():
        stored[key] = np.asarray(values)
        if stored[key].dtype.hasobject or len(stored[key]) != samples:
            raise DataError(f"Parameter `arrays` should hold plain arrays of {samples} rows. `{key}` is none.")
    for key in (*modalities, *(unimodal_labels or {}), *(arrays or {})):
        manifests.check_name(key, "Parameters `modalities`, `unimodal_labels` and `arrays`")
    if clash := sorted(set(modalities) & set(arrays or {})):
        raise DataError(f"Parameter `arrays` should not reuse the name of a modality. Found {', '.join(clash)}.")
    if not modalities and texts is None:
        raise DataError("Parameter `modalities` should name at least one modality, or `texts` be given. Found neither.")
    given = {"id": ids, "split": splits, "group": groups, "speaker": speakers, "text": texts}
    columns = {key: list(values) for key, values in given.items() if values is not None}
    check_samples(columns, samples)
    unknown = sorted(set(extractor or {}) - set(modalities))
    if unknown:
        raise DataError(f"Parameter `extractor` should name modalities of the dataset. Found {', '.join(unknown)}.")

    with _new_folder(Path(path), overwrite=overwrite) as folder:
        infos, present = {}, np.zeros(samples, dtype=bool)
        for modality, sequences in modalities.items():
            summary = write_ragged(folder, modality, sequences, samples, what=f"Modality `{modality}`")
            infos[modality] = ModalityInfo(**describe_sequences(summary, (extractor or {}).get(modality)))
            present |= summary.lengths > 0
        if texts is None and not present.all():
            row = int(np.argmin(present))
            raise DataError(
                f"Each sample should have a frame in some modality. Found none for {ids[row]!r} (row {row})."
            )
        for stem, values in stored.items():
            np.save(folder / f"{stem}.npy", values, allow_pickle=False)
        write_samples(folder, columns)
        _write_manifest(
            folder,
            Manifest(
                name=name,
                source=source,
                synthetic=synthetic,
                samples=samples,
                labels=info,
                modalities=infos,
                splits=count_splits(columns["split"]),
                files={file.name: manifests.sha256(file) for file in sorted(folder.iterdir())},
                columns=tuple(columns),
                unimodal=tuple(unimodal_labels or ()),
                arrays=tuple(arrays or ()),
                extra=dict(extra or {}),
            ),
        )
    return load(path)


def rewrite_splits(
    old: Path,
    manifest: Manifest,
    columns: Mapping[str, Sequence[str]],
    path: Path,
    splits: Sequence[str],
    *,
    overwrite: bool,
) -> Dataset:
    """See `Dataset.with_splits`; what was derived stays behind."""
    columns = {**columns, "split": list(splits)}
    check_samples(columns, manifest.samples)
    with _new_folder(path, overwrite=overwrite) as folder:
        for file in manifest.files:
            if file != FILENAME:
                _link(old / file, folder / file)
        write_samples(folder, columns)
        files = {**manifest.files, FILENAME: manifests.sha256(folder / FILENAME)}
        _write_manifest(folder, replace(manifest, splits=count_splits(columns["split"]), files=files))
    return load(path)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / manifests.FILENAME).write_text(manifest.to_json(), encoding="utf-8")


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(old, new)


@contextmanager
def _new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A hidden sibling of ``path`` that takes its name at the end, or is removed if anything goes wrong."""
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists. Give another path, or overwrite it (`--overwrite`).")
    if path.exists() and not (path / manifests.FILENAME).is_file():
        raise DataError(f"{path} exists and is no dataset, so it is not overwritten. Give another path.")
    path = Path(os.path.abspath(path))
    building = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    make_folder(building, called=path)
    try:
        yield building
        for file in (*building.iterdir(), building):
            _flush(file)
        if path.exists():
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            path.rename(old)
            building.rename(path)
            shutil.rmtree(old)
        else:
            building.rename(path)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # the system doesn't say what was written
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

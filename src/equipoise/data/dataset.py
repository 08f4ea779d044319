"""A canonical dataset on disk, opened for reading: nothing is loaded before it is asked for, features never whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data import manifest as manifests
from equipoise.data.cache import derive
from equipoise.data.errors import DataError
from equipoise.data.labels import check_labels
from equipoise.data.manifest import Manifest, ModalityInfo
from equipoise.data.ragged import Array, Ragged, load_small
from equipoise.data.samples import FILENAME as SAMPLES
from equipoise.data.samples import read_samples
from equipoise.data.split import Split
from equipoise.data.verify import verify


class Dataset:
    """A dataset directory; see `load`. Rows are numbered in the order they were written.

    Attributes:
        path: the directory.
        manifest: what is in it.
    """

    def __init__(self, path: Path, manifest: Manifest, derived: Mapping[str, Path] | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self._derived = dict(derived or {})
        self._ragged = {
            name: Ragged(self._derived[name], "frames") if name in self._derived else Ragged(path, name)
            for name in manifest.modalities
        }

    def __len__(self) -> int:
        return self.manifest.samples

    def __repr__(self) -> str:
        return f"Dataset({self.manifest.name!r}, {len(self)} samples, modalities {', '.join(self.modalities)})"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(self.manifest.modalities)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have samples."""
        return tuple(self.manifest.splits)

    @cached_property
    def labels(self) -> Array:
        """``[N]`` or ``[N, R]`` ``float32``, or ``[N]`` ``int64`` class indices; read-only."""
        return self._checked_labels("labels")

    def unimodal_labels(self, modality: str) -> Array:
        """Labels of one modality on its own, as `labels`."""
        return self._checked_labels(f"labels.{_known(modality, self.manifest.unimodal, 'unimodal labels')}")

    def array(self, name: str) -> Array:
        """A further array of the source, one row a sample."""
        return self._rows(_known(name, self.manifest.arrays, "array"))

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """``samples.csv``: the columns id and split, and those of group, speaker and text that the source had."""
        columns = read_samples(self.path, self.manifest.columns, len(self))
        if (counts := Counter(columns["split"])) != self.manifest.splits:
            raise DataError(
                f"{self.path / SAMPLES} should have as many rows of each split as its manifest says, "
                f"{self.manifest.splits}. Found {dict(counts)}."
            )
        return columns

    @property
    def ids(self) -> list[str]:
        """The id of each row."""
        return self.columns["id"]

    @property
    def texts(self) -> list[str] | None:
        """The transcript of each row, if the source had any."""
        return self.columns.get("text")

    @property
    def groups(self) -> list[str] | None:
        """The source video of each row, if known."""
        return self.columns.get("group")

    @property
    def speakers(self) -> list[str] | None:
        """The speaker of each row, if known."""
        return self.columns.get("speaker")

    def rows(self, split: str) -> Array:
        """``[n]`` row numbers of a split, ascending."""
        _known(split, self.splits, "split")
        return np.flatnonzero(np.asarray(self.columns["split"]) == split).astype(np.int64)

    def split(self, name: str) -> Split:
        """The rows of one split.

        Raises:
            DataError: the dataset has no sample in it.
        """
        return Split(self, name, self.rows(name))

    def ragged(self, modality: str) -> Ragged:
        """The sequences of a modality on disk."""
        return self._ragged[_known(modality, self.modalities, "modality")]

    def sequence(self, modality: str, row: int) -> Array:
        """``[T, d]`` frames (or ``[T]`` token ids) of one row; a copy."""
        return self.ragged(modality).flat(np.array([row], dtype=np.int64))

    def describe(self) -> dict[str, Any]:
        """The manifest without checksums, and the spread of the labels by split; plain JSON values."""
        described = asdict(self.manifest)
        described.pop("files")
        summary = {}
        for name in self.splits:
            labels = self.labels[self.rows(name)]
            if self.manifest.task == "classification":
                summary[name] = {"counts": np.bincount(labels, minlength=self.manifest.labels.outputs).tolist()}
            else:
                summary[name] = {"mean": labels.mean(0).tolist(), "std": labels.std(0).tolist()}
        return {**described, "task": self.manifest.task, "path": str(self.path), "label_summary": summary}

    def verify(self) -> list[str]:
        """Check every file against its checksum and against the others; one line a finding, none if all is well."""
        return verify(self.path, self.manifest)

    def with_splits(self, path: str | PathLike[str], splits: Sequence[str], *, overwrite: bool = False) -> Dataset:
        """Write a dataset that differs in its splits alone; the arrays are hard links where the disk allows.

        Args:
            path: the new directory.
            splits: train, valid or test for each row.

        Raises:
            DataError: an unknown split, an empty train split, a wrong number, a directory that exists.
        """
        from equipoise.data.writer import rewrite_splits

        return rewrite_splits(self.path, self.manifest, self.columns, Path(path), splits, overwrite=overwrite)

    @property
    def cache_dir(self) -> Path:
        """Where `derive` keeps what it computed; not part of the checksums, safe to delete."""
        return self.path / "cache"

    def derive(self, modality: str, *, key: str, compute: Callable[[], Iterable[Array]]) -> Dataset:
        """This dataset with a modality that is computed once and then read from `cache_dir`.

        Args:
            modality: the name, new or replaced in the result; the files of the dataset stay as they are.
            key: all that decides the result besides ids, texts and the modality's own features: encoder, settings.
            compute: gives one ``[T, d]`` float array or ``[T]`` integer array (token ids) a row, in row order; called
                only if nothing is stored under this key for these ids, texts and features.

        Returns:
            A dataset on the same directory. Token ids come in batches as ``[B, T]`` ``int64``.
        """
        manifests.check_name(modality, "Parameter `modality`")
        source = [*self.ids, *(self.texts or ()), self.manifest.files.get(f"{modality}.npy", "")]
        folder, info = derive(self.cache_dir, key, source, len(self), compute)
        changed = replace(self.manifest, modalities={**self.manifest.modalities, modality: ModalityInfo(**info)})
        return Dataset(self.path, changed, {**self._derived, modality: folder})

    def _checked_labels(self, stem: str) -> Array:
        labels = self._rows(stem)
        try:
            checked = check_labels(labels, self.manifest.labels, len(self), stem)
        except DataError as error:
            raise DataError(f"{self.path} is damaged: {error} Restore it, or import the data again.") from None
        checked.flags.writeable = False
        return checked

    def _rows(self, stem: str) -> Array:
        array = load_small(self.path / f"{stem}.npy")
        if len(array) != len(self):
            raise DataError(f"{self.path / stem}.npy should have {len(self)} rows. Found {len(array)}.")
        array.flags.writeable = False
        return array


def _known(name: str, known: Sequence[str], what: str) -> str:
    if name not in known:
        raise DataError(f"The dataset has no {what} {name!r}. It has: {', '.join(known) or 'none'}.")
    return name


def load(path: str | PathLike[str]) -> Dataset:
    """Open a dataset directory.

    Raises:
        FileNotFoundError: no such directory, or no manifest in it.
        DataError: the manifest breaks the layout, or a file that it names is missing.
    """
    folder = Path(path)
    file = folder / manifests.FILENAME
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} is no dataset: {manifests.FILENAME} not found. Make one with `equipoise data import`."
        )
    manifest = Manifest.from_json(file.read_text(encoding="utf-8"), where=str(file))
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} should hold {', '.join(missing)}, as its manifest says. Not found; import the data again."
        )
    return Dataset(folder, manifest)

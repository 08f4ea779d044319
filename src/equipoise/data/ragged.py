"""Sequences of unequal length in one flat array on disk: written as a stream, gathered without loops at flat memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from equipoise.data.errors import DataError

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]

_HEADER_BYTES = 128
_RESIDENT_BYTES = 64 << 20  # mapped pages of a file that may stay resident; beyond, they are given back
_FAULT_BYTES = 128 << 10  # the kernel maps a neighbourhood around each page that is touched


@dataclass(frozen=True, slots=True)
class RaggedSummary:
    """What `write_ragged` saw."""

    dim: int
    dtype: str
    lengths: Index
    repaired: int


def write_ragged(
    folder: Path, stem: str, arrays: Iterable[Array], samples: int, *, what: str, tokens: bool = False
) -> RaggedSummary:
    """Stream one array a sample into ``STEM.npy`` and ``STEM.offsets.npy``.

    Args:
        arrays: ``[T, d]`` or ``[d]`` (one frame), any real dtype, stored as ``float32``; with ``tokens``, ``[T]``
            integers stored as ``int32``. An array of size 0 is a missing sample. Values that are not finite (as
            ``float32``) become 0 and are counted.
        samples: how many arrays are expected.
        what: how errors call the sequences.

    Raises:
        DataError: the number of arrays, a number of dimensions, the width or the dtype is wrong.
    """
    dim, repaired, lengths = -1, 0, []
    dtype = np.dtype("<i4") if tokens else np.dtype("<f4")
    with (folder / f"{stem}.npy").open("wb") as file:
        file.write(b"\0" * _HEADER_BYTES)
        for row, given in enumerate(arrays):
            if row == samples:
                raise DataError(f"{what} should have {samples} sequences, one a sample. Found more.")
            array = np.asarray(given)
            if array.size == 0:
                lengths.append(0)
                continue
            array = _as_frames(array, tokens=tokens, where=f"{what}, row {row}")
            width = 0 if tokens else array.shape[1]
            if dim not in (-1, width):
                raise DataError(f"{what} should have {dim} features a frame, as before. Found {width} in row {row}.")
            dim = width
            with np.errstate(over="ignore"):  # what overflows becomes inf, and is repaired below
                array = np.ascontiguousarray(array, dtype=dtype)
            if not tokens:
                bad = ~np.isfinite(array)
                if count := int(bad.sum()):
                    repaired += count
                    array = np.where(bad, np.float32(0), array)
            file.write(array.data)
            lengths.append(len(array))
        if len(lengths) != samples:
            raise DataError(f"{what} should have {samples} sequences, one a sample. Found {len(lengths)}.")
        if dim == -1:
            raise DataError(f"{what} has no frame in any sample. Leave the modality out.")
        file.seek(0)
        _write_header(file, (sum(lengths),) if tokens else (sum(lengths), dim), dtype)
    counted = np.asarray(lengths, dtype=np.int64)
    np.save(folder / f"{stem}.offsets.npy", np.concatenate([[0], np.cumsum(counted)]).astype("<i8"))
    return RaggedSummary(dim, dtype.name, counted, repaired)


def _as_frames(array: Array, *, tokens: bool, where: str) -> Array:
    if tokens:
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(f"{where} should hold token ids [T]. Found {array.dtype} of shape {list(array.shape)}.")
        if array.min() < 0 or array.max() > np.iinfo(np.int32).max:
            raise DataError(f"{where} should hold token ids from 0 to 2^31 - 1. Found {array.min()} to {array.max()}.")
        return array
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        raise DataError(f"{where} should hold numbers [T, d] or [d]. Found {array.dtype} of shape {list(array.shape)}.")
    return array[None] if array.ndim == 1 else array


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    # The rows are known only at the end of the stream, so the header has a fixed size and is filled in last.
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode("latin1")
    room = _HEADER_BYTES - 10
    file.write(b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n")


class Ragged:
    """Sequences ``[T_i, d]`` (or ``[T_i]`` token ids) on disk, opened when first read and mapped, never loaded.

    Pages of a mapped file count as resident memory, so the map is told to let go of them after every 64 MiB touched:
    the memory of an epoch doesn't depend on the size of the file. Smaller files stay.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._path = folder / f"{stem}.npy"
        self._offsets_path = folder / f"{stem}.offsets.npy"
        self._open: tuple[mmap.mmap, Array] | None = None
        self._offsets: Index | None = None
        self._touched = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None, "_touched": 0}  # a map can't travel to another process

    @property
    def offsets(self) -> Index:
        """``[N + 1]``, the first frame of each sample."""
        if self._offsets is None:
            offsets = load_small(self._offsets_path)
            if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
                raise DataError(f"{self._offsets_path} should rise from 0. It doesn't; import the data again.")
            self._offsets = offsets
            self._offsets.flags.writeable = False
        return self._offsets

    def lengths(self, rows: Index) -> Index:
        """``[n]`` frames of each row."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def padded(self, rows: Index) -> tuple[Array, npt.NDArray[np.bool_]]:
        """``[n, T, d]`` (or ``[n, T]``), zeros after each end, and the mask ``[n, T]``; T is the longest or 1."""
        frames, lengths = self._frames(), self.lengths(rows)
        steps = np.arange(max(1, int(lengths.max(initial=0))))
        mask = steps < lengths[:, None]
        values = np.zeros((len(rows), len(steps), *frames.shape[1:]), dtype=frames.dtype)
        # A copy of one stretch a sample takes less than half the time of an index a frame, with MOSI's shapes.
        for out, first, length in zip(values, self.offsets[rows].tolist(), lengths.tolist(), strict=True):
            out[:length] = frames[first : first + length]
        self._let_go(int(lengths.sum()), len(rows))
        return values, mask

    def flat(self, rows: Index) -> Array:
        """``[ΣT, d]``: the frames of the rows, one row after the other."""
        lengths = self.lengths(rows)
        ends = np.cumsum(lengths)
        index = np.repeat(self.offsets[rows] - ends + lengths, lengths) + np.arange(lengths.sum())
        values: Array = np.take(self._frames(), index, axis=0)
        self._let_go(len(index), len(rows))
        return values

    def _frames(self) -> Array:
        if self._open is None:
            self._open = _map(self._path)
            if len(self._open[1]) != self.offsets[-1]:
                raise DataError(
                    f"{self._path} should hold {self.offsets[-1]} frames, as its offsets say. "
                    f"Found {len(self._open[1])}."
                )
        return self._open[1]

    def _let_go(self, frames: int, rows: int) -> None:
        assert self._open is not None
        mapped, array = self._open
        if array.nbytes <= _RESIDENT_BYTES or not hasattr(mmap, "MADV_DONTNEED"):
            return
        self._touched += frames * array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)) + rows * _FAULT_BYTES
        if self._touched > _RESIDENT_BYTES:
            mapped.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


def load_small(path: Path) -> Array:
    """A `.npy` file as a whole, no pickle allowed; a `DataError` if it is damaged."""
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable array: {error}.") from error
    return array


def _map(path: Path) -> tuple[mmap.mmap, Array]:
    """A read-only view of a ``.npy`` file and the map under it."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
            if fortran or dtype.hasobject or size != start + dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
                raise ValueError(f"{size} bytes don't hold {dtype} of shape {list(shape)}")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise DataError(f"{path} is not a readable array: {error}.") from error
    return mapped, np.frombuffer(mapped, dtype=dtype, offset=start).reshape(shape)

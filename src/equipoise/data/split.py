"""The rows of one split: all that training and evaluation get to see of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from equipoise.core import Batch
from equipoise.data.errors import DataError
from equipoise.data.manifest import Manifest
from equipoise.data.ragged import Array, Index

if TYPE_CHECKING:
    from equipoise.data.dataset import Dataset

_PIECE = 64  # rows gathered at a time by `statistics`


class Split:
    """A view of the rows of one split, by position ``0 … len - 1``.

    Attributes:
        name: train, valid or test.
        rows: ``[n]`` row numbers in the dataset, ascending.
        targets: ``[n]`` or ``[n, R]`` ``float32``, or ``[n]`` ``int64``.
    """

    def __init__(self, dataset: Dataset, name: str, rows: Index) -> None:
        self._dataset = dataset
        self.name = name
        self.rows = rows
        self.targets: Array = dataset.labels[rows]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the dataset."""
        return self._dataset.manifest

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return self._dataset.modalities

    def ids(self) -> list[str]:
        """The id of each position."""
        return [self._dataset.ids[row] for row in self.rows]

    def texts(self) -> list[str]:
        """The transcript of each position.

        Raises:
            DataError: the dataset has no texts.
        """
        texts = self._dataset.texts
        if texts is None:
            raise DataError("The dataset has no texts. Use its features, or import it with a text for each sample.")
        return [texts[row] for row in self.rows]

    def lengths(self, modality: str) -> Index:
        """``[n]`` frames of each position; 0 where the modality is missing."""
        return self._dataset.ragged(modality).lengths(self.rows)

    def unimodal_targets(self, modality: str) -> Array:
        """As `targets`, of one modality on its own (CH-SIMS)."""
        labels: Array = self._dataset.unimodal_labels(modality)[self.rows]
        return labels

    def batch(self, positions: npt.NDArray[Any] | Sequence[int], modalities: Iterable[str] | None = None) -> Batch:
        """Gather padded sequences.

        Args:
            positions: ``[B]`` positions in the split.
            modalities: the modalities wanted; all by default.

        Returns:
            A batch; each modality is as long as its longest sequence in it, at least 1. Padding is 0 with a False mask.
        """
        where = np.asarray(positions, dtype=np.int64)
        rows = self.rows[where]
        inputs, masks = {}, {}
        for name in self.modalities if modalities is None else modalities:
            values, mask = self._dataset.ragged(name).padded(rows)
            tensor = torch.from_numpy(values)
            inputs[name] = tensor if tensor.is_floating_point() else tensor.long()
            masks[name] = torch.from_numpy(mask)
        return Batch(inputs, masks, torch.from_numpy(self.targets[where]), torch.from_numpy(rows))

    def statistics(self, modality: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and (population) standard deviation ``[d]`` over the real frames of this split, in a stream.

        Missing samples and padding have no part; values repaired at import count as the 0 they became. A feature that
        never changes has a deviation of 0.

        Raises:
            DataError: the modality holds token ids, no frame in this split, or one that is not finite.
        """
        info, ragged = self.manifest.modalities.get(modality), self._dataset.ragged(modality)
        if info is not None and info.dim == 0:
            raise DataError(f"Modality {modality!r} holds token ids, which have no mean.")
        count, mean, squares = 0, np.zeros(1), np.zeros(1)
        for start in range(0, len(self), _PIECE):
            frames = ragged.flat(self.rows[start : start + _PIECE])
            if not len(frames):
                continue
            # Chan, Golub and LeVeque (1979): pieces are merged by their own means, so no digits cancel.
            piece_mean = frames.mean(0, dtype=np.float64)
            piece_squares = np.square(frames - piece_mean).sum(0)
            delta, total = piece_mean - mean, count + len(frames)
            squares = squares + piece_squares + np.square(delta) * (count * len(frames) / total)
            mean = mean + delta * (len(frames) / total)
            count = total
        if not count:
            raise DataError(f"Modality {modality!r} has no frame in the split {self.name!r}. Leave it out.")
        if not np.isfinite(squares).all():
            raise DataError(
                f"Modality {modality!r} should be finite. Found NaN or infinity in the split {self.name!r}: the file "
                "has changed since it was written; import the data again."
            )
        return mean, np.sqrt(squares / count)

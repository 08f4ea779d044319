"""Batches of a split: shuffled, bucketed by length, shared among ranks, the same for a seed whatever the workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from equipoise.core import Batch
from equipoise.data.ragged import Index
from equipoise.data.split import Split

_BUCKET = 8  # batches whose samples are sorted by length together: most of the padding saved, little chance lost


class Loader:
    """Batches of a split, epoch by epoch.

    The order of an epoch depends on ``seed``, the epoch, ``batch_size``, ``bucket`` and the split, and on nothing else:
    not on workers, not on the global random state, not on what was read before.

    Every rank works out the same global batches, of which rank r takes samples r, r + world, r + 2 world, …: shares
    differ by one sample at most, and none is empty. A last batch with fewer samples than ranks joins the batch before
    it. To weigh a rank's mean loss exactly, multiply it by ``len(batch) * world / global_batch_sizes()[i]`` before the
    ranks' gradients are averaged.

    Args:
        split: what to read.
        batch_size: samples of a global batch, all ranks together.
        shuffle: a new order each epoch; else the order of the split.
        seed: of the order, not negative.
        bucket: with ``shuffle``, put sequences of similar length into a batch: stretches of 8 batches are sorted by
            length, cut into batches, and the batches shuffled; the last batch is left as it falls. Without ``shuffle``
            it does nothing.
        rank: of this process.
        world: processes that share each batch.
        workers: processes that read ahead; 0 reads in this one.
        drop_last: leave out the samples that don't fill a batch (others each epoch, with ``shuffle``).
        modalities: those to read; all by default.

    Raises:
        ValueError: a parameter is out of its range, or no batch would have a sample for every rank.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        bucket: bool = True,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        drop_last: bool = False,
        modalities: Sequence[str] | None = None,
    ) -> None:
        if world < 1 or not 0 <= rank < world:
            raise ValueError(
                f"Parameter `rank` should be from 0 to `world` - 1. Found `rank = {rank}`, `world = {world}`."
            )
        if batch_size < world:
            raise ValueError(f"Parameter `batch_size` should be at least `world` = {world}. Found {batch_size}.")
        if seed < 0 or workers < 0:
            raise ValueError(f"Parameters `seed` and `workers` should be non-negative. Found {seed}, {workers}.")
        names = split.modalities if modalities is None else tuple(modalities)
        if unknown := sorted(set(names) - set(split.modalities)):
            raise ValueError(
                f"Parameter `modalities` should name modalities of the data ({', '.join(split.modalities)}). "
                f"Found {', '.join(unknown)}."
            )
        needed = batch_size if drop_last else world
        if len(split) < needed:
            raise ValueError(
                f"The split {split.name!r} has {len(split)} samples, and a batch needs {needed}. "
                "Use a smaller `batch_size`, fewer ranks, or `drop_last=False`."
            )
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.workers = workers
        self.drop_last = drop_last
        self.modalities = names
        lengths = [split.lengths(name) for name in names] if shuffle and bucket else []
        self._lengths: Index | None = np.sum(lengths, axis=0) if lengths else None

    def __len__(self) -> int:
        return len(self.global_batch_sizes())

    def global_batch_sizes(self) -> list[int]:
        """Samples of each batch of any epoch, all ranks together: all ``batch_size`` but the last."""
        full, left = divmod(len(self.split), self.batch_size)
        sizes = [self.batch_size] * full
        if left and not self.drop_last:
            if left < self.world:
                sizes[-1] += left
            else:
                sizes.append(left)
        return sizes

    def global_batches(self, epoch: int) -> list[Index]:
        """Positions in the split of each batch of an epoch, all ranks together."""
        if epoch < 0:
            raise ValueError(f"Parameter `epoch` should be non-negative. Found `epoch = {epoch}`.")
        sizes = self.global_batch_sizes()
        order = np.arange(len(self.split))
        if not self.shuffle:
            return np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(order)[: sum(sizes)]
        if self._lengths is not None:
            stretch, end = _BUCKET * self.batch_size, len(order) - sizes[-1]
            for start in range(0, end, stretch):
                part = order[start : min(start + stretch, end)]
                order[start : start + len(part)] = part[np.argsort(self._lengths[part], kind="stable")]
        batches = np.split(order, np.cumsum(sizes)[:-1])
        # The odd one stays last, so that sizes don't depend on the epoch.
        return [batches[i] for i in random.permutation(len(batches) - 1)] + batches[-1:]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's share of the batches of an epoch, from batch ``start`` on (to resume inside an epoch)."""
        shares = [positions[self.rank :: self.world] for positions in self.global_batches(epoch)[start:]]
        if self.workers == 0:
            return (self.split.batch(share, self.modalities) for share in shares)
        source = _Source(self.split, self.modalities)
        # A generator of its own: the loader would otherwise draw from the global state, which dropout uses too.
        generator = torch.Generator().manual_seed(self.seed)
        loader: DataLoader[Batch] = DataLoader(
            source,
            batch_sampler=[share.tolist() for share in shares],
            num_workers=self.workers,
            collate_fn=_same,
            generator=generator,
        )
        return iter(loader)


class _Source(TorchDataset[Batch]):
    """Gathers a batch at a time for `torch.utils.data.DataLoader`."""

    def __init__(self, split: Split, modalities: Sequence[str]) -> None:
        self.split, self.modalities = split, modalities

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> Batch:
        return self.split.batch([position], self.modalities)

    def __getitems__(self, positions: list[int]) -> Batch:
        return self.split.batch(positions, self.modalities)


def _same(batch: Any) -> Any:
    return batch

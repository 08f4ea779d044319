"""One padded batch of utterances."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded sequences of each modality, with masks and targets.

    Attributes:
        inputs: ``{m: [B, T_m, d_m]}`` features, or ``{m: [B, T_m]}`` token ids (``int64``).
        masks: ``{m: [B, T_m]}`` bool, True where a frame is real; a sample that lacks ``m`` has a row of False.
        target: ``[B]`` or ``[B, R]`` values (``float32``), or ``[B]`` class indices (``int64``).
        index: ``[B]`` row numbers in the dataset (``int64``).
    """

    inputs: dict[str, Tensor]
    masks: dict[str, Tensor]
    target: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(
            {name: x.to(device, non_blocking=non_blocking) for name, x in self.inputs.items()},
            {name: x.to(device, non_blocking=non_blocking) for name, x in self.masks.items()},
            self.target.to(device, non_blocking=non_blocking),
            self.index.to(device, non_blocking=non_blocking),
        )

    def only(self, kept: Iterable[str]) -> Batch:
        """The same batch without the other modalities."""
        names = set(kept)
        return replace(
            self,
            inputs={name: x for name, x in self.inputs.items() if name in names},
            masks={name: x for name, x in self.masks.items() if name in names},
        )

    def muted(self) -> Batch:
        """One row of nothing: a single zero frame, or padding token (id 0), padded to the length of this batch.

        One frame and not all of them, so that what an absent modality says does not depend on the batch's padding.
        """
        inputs = {name: torch.zeros_like(x[:1]) for name, x in self.inputs.items()}
        masks = {name: torch.zeros_like(mask[:1]) for name, mask in self.masks.items()}
        for mask in masks.values():
            mask[:, :1] = True
        return Batch(inputs, masks, self.target[:1], self.index[:1])

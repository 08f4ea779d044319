"""The epochs in which a balancer acts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EpochWindow(nn.Module):
    """Counts epochs and says whether the current one lies in ``[from_epoch, until_epoch)``.

    The count is part of the ``state_dict``. It stays on the CPU, so that asking never waits for a device.
    """

    def __init__(self, from_epoch: int = 0, until_epoch: int | None = None) -> None:
        super().__init__()
        if from_epoch < 0:
            raise ValueError(f"Parameter `from_epoch` should be non-negative. Found `from_epoch = {from_epoch}`.")
        if until_epoch is not None and until_epoch <= from_epoch:
            raise ValueError(
                f"Parameter `until_epoch` should be greater than `from_epoch = {from_epoch}`, or None for ever. "
                f"Found `until_epoch = {until_epoch}`."
            )
        self.from_epoch = from_epoch
        self.until_epoch = until_epoch
        self.epoch = 0

    @property
    def active(self) -> bool:
        """Whether the current epoch lies in the window."""
        return self.covers(self.epoch)

    @property
    def over(self) -> bool:
        """Whether the window has closed for good."""
        return self.until_epoch is not None and self.epoch >= self.until_epoch

    def covers(self, epoch: int) -> bool:
        """Whether an epoch lies in the window."""
        return self.from_epoch <= epoch and (self.until_epoch is None or epoch < self.until_epoch)

    def advance(self) -> None:
        """Go to the next epoch."""
        self.epoch += 1

    def get_extra_state(self) -> Tensor:
        """The count as a tensor, so that a whole ``state_dict`` fits a safetensors file."""
        return torch.tensor([self.epoch])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the count."""
        self.epoch = int(state[0])

    def extra_repr(self) -> str:
        """The bounds."""
        return f"from_epoch={self.from_epoch}, until_epoch={self.until_epoch}"

"""Random noise that all ranks draw alike and that survives a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Noise(nn.Module):
    """A stream of normal noise; its position is part of the ``state_dict``.

    The stream belongs to the device that it was first drawn on.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._generator: torch.Generator | None = None
        self._restored: Tensor | None = None
        self._room: Tensor | None = None

    def add_to(self, tensor: Tensor, spread: Tensor) -> None:
        """Add noise of the standard deviation ``spread`` ``[]`` to ``tensor``, in place."""
        if self._generator is None:
            self._generator = torch.Generator(tensor.device).manual_seed(self.seed)
            if self._restored is not None:
                self._generator.set_state(self._restored)
        # Kept room: fresh memory for each tensor costs a CPU a quarter more time.
        room = self._room
        if room is None or room.numel() < tensor.numel() or (room.dtype, room.device) != (tensor.dtype, tensor.device):
            room = self._room = tensor.new_empty(tensor.numel())
        noise = room[: tensor.numel()].normal_(generator=self._generator)
        tensor.addcmul_(noise.view(tensor.shape), spread)

    def get_extra_state(self) -> Tensor:
        """The stream's position (``uint8``); empty before the first draw."""
        if self._generator is not None:
            return self._generator.get_state()
        return torch.empty(0, dtype=torch.uint8) if self._restored is None else self._restored

    def set_extra_state(self, state: Tensor) -> None:
        """Go to a position."""
        self._restored = state.cpu() if len(state) else None
        self._generator = None

"""Random noise that all ranks draw alike and that survives a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Noise(nn.Module):
    """A stream of standard normal noise; its position is part of the ``state_dict``.

    The stream belongs to the device that it was first drawn on.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._generator: torch.Generator | None = None
        self._restored: Tensor | None = None

    def like(self, tensor: Tensor) -> Tensor:
        """Noise of the shape, type and device of ``tensor``."""
        if self._generator is None:
            self._generator = torch.Generator(tensor.device).manual_seed(self.seed)
            if self._restored is not None:
                self._generator.set_state(self._restored)
        return torch.randn(tensor.shape, generator=self._generator, dtype=tensor.dtype, device=tensor.device)

    def get_extra_state(self) -> Tensor:
        """The stream's position (``uint8``); empty before the first draw."""
        if self._generator is not None:
            return self._generator.get_state()
        return torch.empty(0, dtype=torch.uint8) if self._restored is None else self._restored

    def set_extra_state(self, state: Tensor) -> None:
        """Go to a position."""
        self._restored = state.cpu() if len(state) else None
        self._generator = None

"""Weights and buffers back into a module, whatever sizes and precisions they were saved with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a whole ``state_dict`` into a module as it was constructed.

    A buffer that the constructor leaves empty (``numel() == 0``) takes the shape that was saved: what a model remembers
    of each training sample has its size only once it has seen the data. All other shapes have to agree.

    Raises:
        RuntimeError: a missing or an unknown name, or another shape.
    """
    for name, buffer in list(module.named_buffers()):
        saved = tensors.get(name)
        if saved is not None and buffer.numel() == 0 and buffer.shape != saved.shape:
            owner, _, last = name.rpartition(".")
            setattr(
                module.get_submodule(owner), last, torch.empty_like(saved, dtype=buffer.dtype, device=buffer.device)
            )
    module.load_state_dict(dict(tensors))


def match_precision(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give each parameter and buffer the type of the tensor of its name, so that loading it rounds nothing."""
    for name, own in [*module.named_parameters(), *module.named_buffers()]:
        if name in tensors and own.dtype != tensors[name].dtype:
            own.data = own.data.to(tensors[name].dtype)

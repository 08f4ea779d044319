"""Accelerate, set up: device, ranks, mixed precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]

Precision = Literal["no", "bf16", "fp16"]


def make_accelerator(precision: Precision = "no") -> Accelerator:
    """The accelerator of this process: its device, its rank among those that the launcher started, its precision.

    Raises:
        ValueError: an unknown precision, or ``"fp16"`` without a GPU.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    if precision not in ("no", "bf16", "fp16"):
        raise ValueError(f'Parameter `precision` should be "no", "bf16" or "fp16". Found `precision = {precision!r}`.')
    if precision == "fp16" and not torch.cuda.is_available():
        raise ValueError('`precision = "fp16"` needs a GPU. Found none: use "bf16" or "no".')
    # One process may train several runs; Accelerate would hold on to the precision of the first.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)

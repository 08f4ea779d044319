"""Accelerate, set up: device, ranks, mixed precision."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]

Precision = Literal["no", "bf16", "fp16"]


def make_accelerator(precision: Precision = "no") -> Accelerator:
    """The accelerator of this process: its device, its rank among those that the launcher started, its precision.

    Raises:
        ValueError: an unknown precision, ``"fp16"`` without a GPU, or several ranks on a device that has none.
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
    # Left to itself Accelerate looks for a launcher's ranks on a GPU only: on a CPU each would train as the first.
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.accelerator.is_available())
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise ValueError(
            f"The launcher started {launched} processes; Accelerate can use {accelerator.num_processes} of them on the "
            f"device {accelerator.device.type!r}. Start one, or set ACCELERATE_USE_CPU=true."
        )
    return accelerator

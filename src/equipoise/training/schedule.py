"""Learning rates as a function of the step: nothing to store, nothing to resume."""

from __future__ import annotations

import math
from typing import Literal

from torch.optim import Optimizer

Scheduler = Literal["none", "linear", "cosine"]


def lr_factor(step: int, steps: int, scheduler: Scheduler = "none", warmup: float = 0.0) -> float:
    """The share of its base learning rate that a group uses at ``step`` (from 0) of ``steps``.

    It rises linearly over the first ``warmup`` share of all steps (the first step already moves), then stays
    (``"none"``), falls linearly to zero, or follows half a cosine to zero.

    Example:
        >>> [lr_factor(step, 4, "linear", warmup=0.5) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if scheduler == "none":
        return 1.0
    done = (step - rising) / max(steps - rising, 1)
    return 1.0 - done if scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Give every group ``factor`` times its ``base_lr``."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["base_lr"]

"""Sums over the ranks of a distributed run."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's ``values``; the values themselves in a run of one process.

    Scores that steer training must agree on all ranks, or their replicas drift apart.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total

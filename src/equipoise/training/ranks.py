"""Several processes, one optimizer step.

Gradients are exchanged here, once a step, and not by a wrapper around the model: balancers call the model's parts
directly, heads that feed no loss get no gradient, and a parameter that no rank used stays without one, exactly as in
one process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def total(count: int, device: torch.device, world: int) -> int:
    """The sum of a count over the ranks."""
    if world == 1:
        return count
    counts = torch.tensor([count], device=device)
    dist.all_reduce(counts)
    return int(counts.item())


def sum_over_ranks(values: Tensor, world: int) -> Tensor:
    """The sum of a tensor over the ranks."""
    if world > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def sum_gradients(parameters: Sequence[nn.Parameter], world: int) -> None:
    """Add up the gradients of all ranks, in one exchange a dtype."""
    if world == 1:
        return
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    dist.all_reduce(used)
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter, count in zip(parameters, used.tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def copy_from_first_rank(module: nn.Module, world: int) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if world > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)


def from_first_rank(values: list[float], device: torch.device, world: int) -> list[float]:
    """Rank 0's numbers, so that no rounding makes ranks decide differently."""
    if world == 1:
        return values
    shared = torch.tensor(values, dtype=torch.float64, device=device)
    dist.broadcast(shared, src=0)
    found: list[float] = shared.tolist()
    return found

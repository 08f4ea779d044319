"""Optimizers by name, with learning rates of their own for some modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

OptimizerName = Literal["adamw", "adam", "sgd"]


def make_optimizer(
    model: nn.Module,
    name: OptimizerName = "adamw",
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    own_lr: Sequence[tuple[nn.Module, float]] = (),
) -> Optimizer:
    """An optimizer over the trainable parameters; each group keeps its ``base_lr`` for the schedule.

    Args:
        model: whose parameters.
        name: ``"adamw"``, ``"adam"`` or ``"sgd"``.
        lr: learning rate of everything that is not in ``own_lr``.
        weight_decay: decoupled in ``"adamw"``, an L2 term in the others.
        momentum: for ``"sgd"``.
        own_lr: modules of the model and their learning rates, such as a text encoder's.

    Raises:
        ValueError: nothing to train, or an unknown name.
    """
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for module, rate in [*own_lr, (model, lr)]:
        parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
        taken |= {id(p) for p in parameters}
        if parameters:
            groups.append({"params": parameters, "lr": rate, "base_lr": rate})
    if not groups:
        raise ValueError(f"{type(model).__name__} should have trainable parameters. Found none.")
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)
    raise ValueError(f'Parameter `optimizer` should be "adamw", "adam" or "sgd". Found `optimizer = {name!r}`.')

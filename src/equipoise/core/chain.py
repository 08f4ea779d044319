"""Several balancers, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import tee
from typing import cast

from torch import Tensor, nn
from torch.optim import Optimizer

from equipoise.core.balancer import Balancer
from equipoise.core.step import Step


class Chain(Balancer):
    """Balancers in a row, used as one: the two stages of AGS, or a loss of one method beside the factors of another.

    ``forward`` hands each balancer the loss that the one before it returned; ``modulate``, ``end_epoch`` and ``attach``
    run in order. At most one balancer may replace the loss, and it comes first.

    Args:
        *balancers: at least one.

    Raises:
        ValueError: no balancer, or one that replaces the loss anywhere but first.

    Example:
        >>> from torch import nn
        >>> from equipoise import AGS, Chain, Modalities
        >>> encoders = Modalities(text=nn.Linear(3, 2), audio=nn.Linear(4, 2))
        >>> branches = Modalities(text=nn.Linear(2, 1), audio=nn.Linear(2, 1))
        >>> balancer = Chain(AGS(encoders, alpha=0.05), AGS(branches, alpha=0.01, strategy="max"))
        >>> len(list(balancer)), sorted(balancer.needs)
        (2, [])
    """

    def __init__(self, *balancers: Balancer) -> None:
        nn.Module.__init__(self)
        if not balancers:
            raise ValueError("`Chain` needs at least one balancer. Found none.")
        for position, balancer in enumerate(balancers[1:], start=1):
            if balancer.replaces_loss:
                raise ValueError(
                    f"{type(balancer).__name__} replaces the loss: it should come first in a `Chain`, and alone of its "
                    f"kind. Found it at position {position}, after {type(balancers[0]).__name__}."
                )
        self.balancers = nn.ModuleList(balancers)
        self.modalities = balancers[0].modalities
        self.window = balancers[0].window
        self.needs = frozenset[str]().union(*(balancer.needs for balancer in balancers))
        self.replaces_loss = balancers[0].replaces_loss
        self.trace = {}

    def __iter__(self) -> Iterator[Balancer]:
        return (cast(Balancer, balancer) for balancer in self.balancers)

    def forward(self, step: Step) -> Tensor:
        """Fold the loss ``[]`` through the balancers."""
        for balancer in self:
            step = replace(step, loss=balancer(step))
        return step.loss

    def modulate(self) -> None:
        """Let each balancer modulate, in order."""
        for balancer in self:
            balancer.modulate()

    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        """Close the epoch for each balancer; each may read the steps, which are computed only as far as one reads."""
        count = len(self.balancers)
        for balancer, train_steps, val_steps in zip(self, tee(train, count), tee(val, count), strict=True):
            balancer.end_epoch(train=train_steps, val=val_steps)

    def attach(self, optimizer: Optimizer) -> None:
        """Let each balancer meet the optimizer."""
        for balancer in self:
            balancer.attach(optimizer)

    def scalars(self) -> dict[str, Tensor]:
        """The traces of all, each name led by the balancer's position."""
        return {f"{i}/{key}": value for i, balancer in enumerate(self) for key, value in balancer.scalars().items()}

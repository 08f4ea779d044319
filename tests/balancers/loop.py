"""How a user sets a balancer up, and the loop around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from tests.balancers.toy import Data, Toy, backward, names_of, step_of, toy
from torch import Tensor, nn

from equipoise import Balancer, Chain


@dataclass(frozen=True)
class Setting:
    """A balancer as a user sets it up.

    Attributes:
        build: makes it for a model's encoders, in the order of ``names``.
        update: it scales the optimizer's step, and the gradients stay as they are.
        noise: it adds noise, so a result is random but for the seed.
        loss: the loss that it returns has another gradient than ``Step.loss``.
        beyond: parts of `Toy` outside of `Modalities` that this other gradient reaches.
        adds: it adds losses of its own, which do not follow a factor in ``Step.loss``: what it returns is multiplied
            instead, as a gradient scaler and a loop that accumulates do.
        micro: micro-batches equal the full batch.
        subsets: ``Step.predict`` is a `SubsetPredict`, else a closure that runs the whole model.
        levels: it leaves equal modalities alone.
        ends: it acts on weights at the end of an epoch, and on no step.
        waits: ``modulate()`` or ``forward`` copies something to the host.
        ordered: modalities take turns, in the order in which they are given.
        decays: it draws weights with a strength of its own, as weight decay does, which no factor in the loss changes.
    """

    build: Callable[[Toy, tuple[str, ...]], Balancer]
    update: bool = False
    noise: bool = False
    loss: bool = False
    beyond: tuple[str, ...] = ()
    adds: bool = False
    micro: bool = True
    subsets: bool = False
    levels: bool = True
    ends: bool = False
    waits: bool = False
    decays: bool = False
    ordered: bool = False

    def within(self, first: int, end: int) -> Setting:
        """The same, limited to epochs."""

        def build(model: Toy, names: tuple[str, ...]) -> Balancer:
            balancer = self.build(model, names)
            for part in balancer.modules():
                if isinstance(part, Balancer) and not isinstance(part, Chain):
                    part.window.from_epoch, part.window.until_epoch = first, end
            return balancer

        return replace(self, build=build)


class Run:
    """A model, its optimizer and a balancer, and the loop that a user would write."""

    def __init__(
        self,
        setting: Setting | None,
        count: int,
        dtype: torch.dtype = torch.float64,
        *,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
        names: tuple[str, ...] | None = None,
    ) -> None:
        self.setting = setting
        self.model = toy(count, dtype)
        self.optimizer = (optimizer or (lambda ps: torch.optim.SGD(ps, lr=0.1)))(list(self.model.parameters()))
        self.balancer = None if setting is None else setting.build(self.model, names or names_of(count))
        if self.balancer is not None:
            self.balancer.attach(self.optimizer)

    def observe(self, batch: Data, weight: float = 1.0) -> Tensor:
        """Loss of one micro-batch, seen by the balancer."""
        if self.setting is None or self.balancer is None:
            return step_of(self.model, batch, weight=weight).loss
        if self.setting.adds:
            added: Tensor = self.balancer(step_of(self.model, batch, subsets=self.setting.subsets))
            return added * weight
        loss: Tensor = self.balancer(step_of(self.model, batch, weight=weight, subsets=self.setting.subsets))
        return loss

    def backward(self, *batches: Data, weight: float = 1.0) -> None:
        """Gradients of micro-batches, modulated."""
        self.optimizer.zero_grad()
        for batch in batches:
            backward(self.observe(batch, weight / len(batches)))
        if self.balancer is not None:
            self.balancer.modulate()

    def train(self, *batches: Data, weight: float = 1.0) -> None:
        """A whole step."""
        self.backward(*batches, weight=weight)
        self.optimizer.step()

    def end_epoch(self, batch: Data) -> None:
        if self.balancer is not None:
            unseen = Data({name: x.flip(0) for name, x in batch.inputs.items()}, batch.target)
            with torch.no_grad():
                train, val = (
                    (step_of(self.model, part) for part in (split.rows(0, 4), split.rows(4, 8)))
                    for split in (batch, unseen)
                )
                self.balancer.end_epoch(train=train, val=val)

    def gradients(self) -> dict[str, Tensor | None]:
        return {name: None if p.grad is None else p.grad.clone() for name, p in self.model.named_parameters()}

    def parameters(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}


def moved(run: Run, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """How far each parameter is from where it was."""
    return {name: value - before[name] for name, value in run.parameters().items()}


def same(found: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None]) -> bool:
    """Whether all tensors are equal to the bit."""

    def equal(x: Tensor | None, y: Tensor | None) -> bool:
        return x is y if x is None or y is None else torch.equal(x, y)

    return found.keys() == expected.keys() and all(equal(found[name], expected[name]) for name in expected)

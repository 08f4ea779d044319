from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from equipoise import AGM, AGS, MSES, OGMGE, Balancer, Chain, Modalities, Step


class Recorder(Balancer):
    """Writes down what it was told, and adds to the loss."""

    def __init__(self, name: str, log: list[str], reads: int = 0) -> None:
        super().__init__(Modalities(text=nn.Linear(1, 1), audio=nn.Linear(1, 1)))
        self.name, self.log, self.reads = name, log, reads

    def forward(self, step: Step) -> Tensor:
        self.log.append(f"{self.name} saw {float(step.loss):g}")
        return step.loss + 1

    def modulate(self) -> None:
        self.log.append(f"{self.name} modulated")

    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        found = [float(step.loss) for step, _ in zip(val, range(self.reads), strict=False)]
        self.log.append(f"{self.name} read {found}")

    def attach(self, optimizer: Optimizer) -> None:
        self.log.append(f"{self.name} attached")


def test_each_is_called_in_order_with_the_loss_of_the_one_before() -> None:
    log: list[str] = []
    chain = Chain(Recorder("a", log), Chain(Recorder("b", log), Recorder("c", log)))
    assert float(chain(Step(torch.zeros(())))) == 3
    chain.modulate()
    chain.attach(torch.optim.SGD([nn.Parameter(torch.zeros(1))]))
    assert log == [
        "a saw 0", "b saw 1", "c saw 2",
        "a modulated", "b modulated", "c modulated",
        "a attached", "b attached", "c attached",
    ]  # fmt: skip


def test_all_may_read_the_same_steps_which_are_computed_once_and_only_as_far_as_read() -> None:
    log: list[str] = []
    computed = []

    def steps() -> Iterator[Step]:
        for i in range(9):
            computed.append(i)
            yield Step(torch.tensor(float(i)))

    Chain(Recorder("a", log, 1), Recorder("b", log, 3), Recorder("c", log, 2)).end_epoch(val=steps())
    assert log == ["a read [0.0]", "b read [0.0, 1.0, 2.0]", "c read [0.0, 1.0]"]
    assert computed == [0, 1, 2, 3]


def modalities() -> Modalities:
    return Modalities(text=nn.Linear(1, 1), audio=nn.Linear(1, 1))


def test_it_needs_what_any_of_them_needs() -> None:
    assert Chain(AGS(modalities())).needs == frozenset()
    assert Chain(AGS(modalities()), OGMGE(modalities())).needs == {"unimodal", "target"}
    chain = Chain(AGM(modalities()), MSES(modalities()))
    assert chain.needs == {"logits", "target", "predict", "unimodal", "criterion"}
    assert chain.replaces_loss
    assert not Chain(AGS(modalities())).replaces_loss


def test_a_replaced_loss_comes_first_and_alone() -> None:
    with pytest.raises(ValueError, match=r"AGM replaces the loss.* Found it at position 1, after AGS"):
        Chain(AGS(modalities()), AGM(modalities()))
    with pytest.raises(ValueError, match=r"AGM replaces the loss.* after AGM"):
        Chain(AGM(modalities()), AGM(modalities()))
    with pytest.raises(ValueError, match="Chain replaces the loss"):
        Chain(AGS(modalities()), Chain(AGM(modalities())))
    with pytest.raises(ValueError, match="at least one balancer"):
        Chain()


def test_traces_are_told_apart_by_position_and_the_epoch_counts_for_all() -> None:
    groups = [modalities(), modalities()]
    for group in groups:
        for i, name in enumerate(group):
            for parameter in group.parameters(name):
                parameter.grad = torch.full_like(parameter, 1.0 + i)
    chain = Chain(AGS(groups[0], until_epoch=1), AGS(groups[1], strategy="max"))
    chain.modulate()
    assert {"0/factors/text", "0/norms/audio", "1/dominant/audio"} <= set(chain.scalars())
    chain.end_epoch()
    chain.modulate()
    assert {key[0] for key in chain.scalars()} == {"1"}
    assert [part.window.epoch for part in chain] == [1, 1]

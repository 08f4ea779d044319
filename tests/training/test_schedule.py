from __future__ import annotations

import math

import pytest
import torch

from equipoise.training.optimizers import make_optimizer
from equipoise.training.schedule import lr_factor, set_lr


@pytest.mark.parametrize(
    ("scheduler", "warmup", "expected"),
    [
        ("none", 0.0, [1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("cosine", 0.0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("none", 0.75, [1 / 3, 2 / 3, 1, 1]),
        ("linear", 0.5, [0.5, 1, 1, 0.5]),
        ("cosine", 0.3, [0.5, 1, 1, 0.5]),
    ],
)
def test_values_by_hand(scheduler: str, warmup: float, expected: list[float]) -> None:
    found = [lr_factor(step, 4, scheduler, warmup) for step in range(4)]  # type: ignore[arg-type]
    assert found == pytest.approx(expected)


def test_groups_keep_the_ratio_of_their_rates() -> None:
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)})
    optimizer = make_optimizer(model, lr=0.1, own_lr=[(model["encoder"], 0.002)])
    set_lr(optimizer, 0.5)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[p] for p in model["encoder"].parameters()} == {0.001}
    assert {rates[p] for p in model["head"].parameters()} == {0.05}
    assert len(rates) == 4


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="trainable parameters"):
        make_optimizer(torch.nn.Linear(1, 1).requires_grad_(False))

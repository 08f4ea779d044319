"""The statistical loss: worked by hand, derived again, and its misuse."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import log

import pytest
import torch
from tests.balancers.settings import SETTINGS
from tests.balancers.toy import CLASSES, Data, Toy, backward, data, encoders, names_of, step_of, toy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from equipoise import SL, Modalities, Step

every_count = pytest.mark.parametrize("count", [2, 3, 4])
every_task = pytest.mark.parametrize("task", ["classification", "regression"])


def pair() -> Modalities:
    return Modalities(text=nn.Linear(1, 1), audio=nn.Linear(1, 1))


def loss_of(logits: Tensor, target: Tensor, features: dict[str, Tensor] | None = None, **weights: float) -> float:
    balancer = SL(pair(), **weights)  # type: ignore[arg-type]
    plain = torch.zeros((), requires_grad=True)
    found: Tensor = balancer(Step(plain, logits=logits, target=target, features=features))
    return found.item()


# Worked by hand


def test_regression() -> None:
    # Predictions 0 and 2: mean 1, deviation 1. Targets 0 and 6: 3 and 3. (1 - 3)² + (1 - 3)² = 8.
    assert loss_of(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 6.0]), lambda_stat=0.25, lambda_cov=0.0) == 2


def test_classification() -> None:
    # Probabilities (1/4, 3/4) twice: no spread. Labels 0, 1: frequencies and deviations 1/2. 1/16 + 1/4 a class.
    logits = torch.tensor([[0.0, log(3)]]).repeat(2, 1)
    assert loss_of(logits, torch.tensor([0, 1]), lambda_stat=16.0, lambda_cov=0.0) == pytest.approx(1 + 4)


def test_covariance() -> None:
    # Over B - 1: text has variances 2 and 0, audio 8 and 0. (2 - 8)² / (4 · 2²) = 9/4.
    features = {"text": torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), "audio": torch.tensor([[-2.0, 7.0], [2.0, 7.0]])}
    logits, target = torch.zeros(2), torch.zeros(2)
    assert loss_of(logits, target, features, lambda_stat=0.0, lambda_cov=4.0) == pytest.approx(9)


def test_covariances_of_three_are_a_mean_over_pairs() -> None:
    # Variances 0, 2, 8 of one feature: (2² + 8² + 6²)/4 over 3 pairs. Text's own mean is (1 + 16)/2, and so on.
    features = {name: torch.tensor([[-x], [x]]) for name, x in (("text", 0.0), ("audio", 1.0), ("vision", 2.0))}
    balancer = SL(Modalities(text=nn.Linear(1, 1), audio=nn.Linear(1, 1), vision=nn.Linear(1, 1)), lambda_stat=0.0)
    found = balancer(Step(torch.ones((), requires_grad=True), features=features))
    assert found.item() == pytest.approx(1 + 0.1 * (1 + 16 + 9) / 3)
    assert balancer.trace["covariance"].tolist() == pytest.approx([17 / 2, 10 / 2, 25 / 2])
    assert balancer.trace.keys() == {"covariance"}


# Derived again


def spread(x: Tensor) -> Tensor:
    return ((x * x).mean(dim=0) - x.mean(dim=0) ** 2).sqrt()


def reference(step: Step, weights: tuple[float, float]) -> Tensor:
    """From moments about zero, column by column and pair by pair."""
    assert step.logits is not None
    assert step.target is not None
    assert step.features is not None
    predicted, observed = step.logits, step.target
    if not observed.is_floating_point():
        predicted = predicted.exp() / predicted.exp().sum(dim=1, keepdim=True)
        observed = F.one_hot(observed, CLASSES).double()
    loss = step.loss
    for c in range(CLASSES):
        gap = (predicted[:, c].mean() - observed[:, c].mean()) ** 2
        gap = gap + (spread(predicted)[c] - spread(observed)[c]) ** 2
        loss = loss + weights[0] * gap / CLASSES
    pairs = list(combinations(step.features.values(), 2))
    for x, y in pairs:
        distance = (torch.cov(x.T) - torch.cov(y.T)) ** 2
        loss = loss + weights[1] * distance.sum() / (4 * 4**2) / len(pairs)
    return loss


def task_step(model: Toy, batch: Data, task: str) -> Step:
    step = step_of(model, batch)
    if task == "classification":
        return step
    assert step.logits is not None
    target = 3 * F.one_hot(batch.target, CLASSES).double()
    return replace(step, loss=F.l1_loss(step.logits, target), target=target)


@every_task
@every_count
def test_a_few_steps(count: int, task: str) -> None:
    weights = (0.8, 1.7)
    model, other = toy(count), toy(count)
    balancer = SL(encoders(model, names_of(count)), lambda_stat=weights[0], lambda_cov=weights[1])
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.2) for each in (model, other)]
    for seed in range(4):
        for optimizer in optimizers:
            optimizer.zero_grad()
        expected = reference(task_step(other, data(count, seed=seed), task), weights)
        found = balancer(task_step(model, data(count, seed=seed), task))
        assert_close(found, expected)
        assert set(balancer.trace) == {"distribution", "covariance"}
        backward(found)
        backward(expected)
        balancer.modulate()
        for optimizer in optimizers:
            optimizer.step()
    for parameter, same in zip(model.parameters(), other.parameters(), strict=True):
        assert_close(parameter.detach(), same.detach())


# What it is for


@every_task
def test_predictions_that_shrank_to_the_mean_are_spread_out(task: str) -> None:
    """Predictions in the right order, a tenth as wide as the targets, and off by one."""
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    goal = F.one_hot(target, CLASSES).double()
    logits = (0.1 * goal + (1.0 if task == "regression" else 0.0)).requires_grad_()
    balancer = SL(pair(), lambda_stat=1.0, lambda_cov=0.0)
    optimizer = torch.optim.SGD([logits], lr=2.0)
    before = spread(logits.detach())
    for _ in range(30):
        optimizer.zero_grad()
        backward(balancer(Step(0 * logits.sum(), logits=logits, target=goal if task == "regression" else target)))
        optimizer.step()
    after = logits.detach()
    assert (spread(after) > 2 * before).all()
    assert (after.argmax(dim=1) == target).all()
    if task == "regression":
        assert_close(after.mean(dim=0), goal.mean(dim=0), rtol=1e-2, atol=1e-2)


# Mistakes


@every_task
def test_one_sample_and_constant_predictions_give_finite_gradients(task: str) -> None:
    for rows in (1, 4):
        weights = torch.zeros(2, CLASSES, requires_grad=True)
        features = {name: weights[i].expand(rows, CLASSES) for i, name in enumerate(("text", "audio"))}
        logits = features["text"] + features["audio"]
        target = torch.zeros(rows, dtype=torch.int64) if task == "classification" else torch.ones(rows, CLASSES)
        loss = SL(pair())(Step(0 * logits.sum(), logits=logits, target=target, features=features))
        (gradient,) = torch.autograd.grad(loss, weights)
        assert torch.isfinite(gradient).all()
        assert gradient.any()


def test_only_what_is_weighted_is_read() -> None:
    assert SL(pair()).needs == {"logits", "target", "features"}
    assert SL(pair(), lambda_cov=0).needs == {"logits", "target"}
    assert SL(pair(), lambda_stat=0).needs == {"features"}
    assert loss_of(torch.zeros(2), torch.zeros(2), lambda_cov=0) == 0
    with pytest.raises(ValueError, match=r"needs `features` in the `Step`. Found None"):
        loss_of(torch.zeros(2), torch.zeros(2))


def test_features_of_several_widths_are_an_error() -> None:
    features = {"text": torch.zeros(2, 3), "audio": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match=r"of one width. Found {'text': 3, 'audio': 4}. .* set `lambda_cov=0`"):
        loss_of(torch.zeros(2), torch.zeros(2), features)
    assert loss_of(torch.zeros(2), torch.zeros(2), features, lambda_cov=0) == 0


@pytest.mark.parametrize("name", ["lambda_stat", "lambda_cov"])
def test_arguments(name: str) -> None:
    with pytest.raises(ValueError, match=rf"Parameter `{name}` should be non-negative. Found `{name} = -1`"):
        SL(pair(), **{name: -1})


def test_a_setting_that_does_nothing_is_told() -> None:
    with pytest.warns(UserWarning, match=r"SL does nothing with `lambda_stat = 0` and `lambda_cov = 0`"):
        balancer = SL(pair(), lambda_stat=0, lambda_cov=0)
    loss = torch.ones((), requires_grad=True)
    assert balancer(Step(loss)) is loss


@pytest.mark.parametrize("name", ["sl", "chain-sl-cp"])
def test_it_waits_for_no_device(name: str) -> None:
    model = toy(3).to("meta")
    batch = data(3)
    on_meta = Data({m: x.to("meta") for m, x in batch.inputs.items()}, batch.target.to("meta"))
    balancer = SETTINGS[name].build(model, names_of(3))
    backward(balancer(step_of(model, on_meta)))
    balancer.modulate()
    assert all(value.device.type == "meta" for value in balancer.scalars().values())

"""The conflict-aware penalty: worked by hand, derived again, and its misuse."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import sqrt

import pytest
import torch
from tests.balancers.settings import FUSION
from tests.balancers.toy import (
    CLASSES,
    Data,
    Toy,
    backward,
    data,
    encoders,
    gradients,
    names_of,
    parameters,
    step_of,
    toy,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from equipoise import AGM, CP, SL, Chain, Modalities, Step

TASKS = ["classification", "regression"]
every_count = pytest.mark.parametrize("count", [2, 3, 4])
every_task = pytest.mark.parametrize("task", TASKS)


def task_step(model: Toy, batch: Data, task: str) -> Step:
    step = step_of(model, batch)
    if task == "classification":
        return step
    assert step.logits is not None
    target = F.one_hot(batch.target, CLASSES).to(step.logits.dtype)
    return replace(step, loss=F.mse_loss(step.logits, target), target=target, criterion=F.mse_loss)


# Worked by hand


def test_gradient() -> None:
    # Norms: text sqrt((1² + 7²)/2) = 5, audio sqrt((2² + 2²)/2) = 2, vision 3. Others' means 5/2, 4, 7/2: text alone is
    # above, ρ = 2, c = 2 - 1 - 1/2 = 1/2, factor 1/(1 + 2 · 1/2) = 1/2. After it text has 5/2 against 5/2.
    modalities = Modalities(text=parameters(1, -7), audio=parameters(2, -2), vision=parameters(3))
    balancer = CP(modalities, lambda_cp=2.0, tolerance=0.5)
    balancer.modulate()
    assert gradients(modalities) == {"text": pytest.approx([0.5, -3.5]), "audio": [2, -2], "vision": [3]}
    expected = {
        "norms": [5, 2, 3],
        "conflict": [0.5, 0, 0],
        "exists": [True] * 3,
        "dominance": [2, 1 / 2, 6 / 7],
        "factors": [0.5, 1, 1],
        "dominance_after": [1, 2 / 2.75, 3 / 2.25],
    }
    assert balancer.trace.keys() == expected.keys()
    for key, values in expected.items():
        assert balancer.trace[key].tolist() == pytest.approx(values), key


def test_update() -> None:
    # The factor of text is 1/2 as above. SGD with lr 1/2 and decay 1/10 takes 10 to 10 - (g + 1)/2.
    modalities = Modalities(text=parameters(5), audio=parameters(2), vision=parameters(3))
    everything = [p for name in modalities for p in modalities.parameters(name)]
    optimizer = torch.optim.SGD(everything, lr=0.5, weight_decay=0.1)
    balancer = CP(modalities, lambda_cp=2.0, tolerance=0.5, apply_to="update")
    balancer.attach(optimizer)
    balancer.modulate()
    optimizer.step()
    assert [p.item() for p in everything] == pytest.approx([10 - 0.5 * 3, 10 - 1.5, 10 - 2])


@pytest.mark.parametrize(("tolerance", "expected"), [(0.5, 6.0), (0.25, 6 / 1.25)])
def test_within_the_tolerance_there_is_no_conflict(tolerance: float, expected: float) -> None:
    # 6 against 4: ρ = 3/2.
    modalities = Modalities(text=parameters(6), audio=parameters(4))
    balancer = CP(modalities, tolerance=tolerance)
    balancer.modulate()
    assert gradients(modalities) == {"text": [pytest.approx(expected)], "audio": [4]}
    assert balancer.trace["exists"].tolist() == [expected < 6] * 2


def test_loss() -> None:
    # L = a f + b h, with f = 2 and h = 5 the encoders' outputs: norms a = 3 and b = 1, P = (2/4)² = 1/4.
    # dP/da = 2 · 1/2 · 2b/(a + b)² = 1/8, dP/db = -2 · 1/2 · 2a/(a + b)² = -3/8, and nothing for f and h.
    f, h, a, b = (nn.Parameter(torch.tensor(value)) for value in (2.0, 5.0, 3.0, 1.0))
    balancer = CP(Modalities(text=[f], audio=[h]), mode="loss", lambda_cp=8.0)
    features = {"text": f.reshape(1, 1), "audio": h.reshape(1, 1)}
    plain = (a * features["text"] + b * features["audio"]).sum()
    loss = balancer(Step(plain, features=features))
    assert loss.item() == pytest.approx(11 + 8 / 4)
    backward(loss)
    balancer.modulate()
    found = [float(p.grad) for p in (f, h, a, b) if p.grad is not None]
    assert found == pytest.approx([3, 1, 2 + 8 / 8, 5 - 8 * 3 / 8])
    assert balancer.trace["norms"].tolist() == [3, 1]
    assert balancer.trace["penalty"].tolist() == [1 / 8, 1 / 8]
    assert balancer.trace["dominance"].tolist() == pytest.approx([3, 1 / 3])
    assert balancer.trace["conflict"].tolist() == pytest.approx([1.9, 0])


# Derived again


def plain_norm(values: list[Tensor]) -> float:
    return sqrt(sum(float((x * x).sum()) for x in values) / len(values))


@every_task
@every_count
def test_scaled_gradients(count: int, task: str) -> None:
    names, strength, tolerance, conflicts = names_of(count), 1.5, 0.05, 0
    model = toy(count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    balancer = CP(encoders(model, names), lambda_cp=strength, tolerance=tolerance)
    for seed in range(4):
        step = task_step(model, data(count, seed=seed), task)
        slopes = dict(
            zip(
                dict(model.named_parameters()),
                torch.autograd.grad(step.loss, list(model.parameters()), retain_graph=True, allow_unused=True),
                strict=True,
            )
        )
        norms = {
            name: plain_norm([g for key, g in slopes.items() if g is not None and key.startswith(f"encoders.{name}.")])
            for name in names
        }
        factors = dict.fromkeys(names, 1.0)
        for name in names:
            others = [norms[other] for other in names if other != name]
            excess = norms[name] / (sum(others) / len(others)) - 1 - tolerance
            if excess > 0:
                factors[name] = 1 / (1 + strength * excess)
                conflicts += 1
        expected = {}
        for key, parameter in model.named_parameters():
            factor = factors[key.split(".")[1]] if key.startswith("encoders.") else 1.0
            slope = slopes[key]
            expected[key] = parameter.detach() - (0 if slope is None else 0.3 * factor * slope)
        optimizer.zero_grad()
        backward(balancer(step))
        balancer.modulate()
        optimizer.step()
        for key, parameter in model.named_parameters():
            assert_close(parameter.detach(), expected[key])
    assert conflicts > 2


def penalty(model: Toy, batch: Data, task: str) -> float:
    """From first derivatives alone."""
    step = task_step(model, batch, task)
    assert step.features is not None
    slopes = torch.autograd.grad(step.loss, list(step.features.values()))
    norms = [sqrt(float((slope * slope).sum())) for slope in slopes]
    return sum(((x - y) / (x + y)) ** 2 for x, y in combinations(norms, 2))


@every_task
@every_count
def test_added_penalty(count: int, task: str) -> None:
    """Its gradient is the change of the penalty along a line, measured."""
    strength, width = 0.7, 1e-5
    model = toy(count)
    balancer = CP(encoders(model, names_of(count)), mode="loss", lambda_cp=strength)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    generator = torch.Generator().manual_seed(0)
    for seed in range(3):
        batch = data(count, seed=seed)
        step = task_step(model, batch, task)
        plain = torch.autograd.grad(step.loss, list(model.parameters()), retain_graph=True, allow_unused=True)
        loss = balancer(step)
        assert float(loss.detach() - step.loss.detach()) == pytest.approx(strength * penalty(model, batch, task))
        optimizer.zero_grad()
        backward(loss)
        balancer.modulate()
        parts = {"encoders": 0.0, "projections": 0.0, "out": 0.0}
        for part in parts:
            slope, line = 0.0, {}
            for (key, parameter), without in zip(model.named_parameters(), plain, strict=True):
                if key.startswith(f"{part}."):
                    assert parameter.grad is not None
                    assert without is not None
                    line[key] = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    slope += float((line[key] * (parameter.grad - without)).sum())
            start = {key: value.clone() for key, value in model.state_dict().items()}
            ends = []
            for sign in (1, -1):
                model.load_state_dict(start | {key: start[key] + sign * width * line[key] for key in line})
                ends.append(penalty(model, batch, task))
            model.load_state_dict(start)
            parts[part] = slope
            assert slope == pytest.approx(strength * (ends[0] - ends[1]) / (2 * width), rel=1e-5, abs=1e-8), part
        assert all(parts.values())
        optimizer.step()


def test_training_with_the_penalty_brings_the_norms_together() -> None:
    def gap(strength: float) -> float:
        model = toy(3)
        balancer = CP(encoders(model, names_of(3)), mode="loss", lambda_cp=strength)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for seed in range(40):
            optimizer.zero_grad()
            backward(balancer(step_of(model, data(3, seed=seed))))
            balancer.modulate()
            optimizer.step()
        return penalty(model, data(3, seed=99), "classification")

    assert gap(1.0) < gap(0.1) < gap(0.0)


# Mistakes


def test_a_strength_of_zero_measures_and_changes_nothing() -> None:
    modalities = Modalities(text=parameters(6), audio=parameters(2))
    balancer = CP(modalities, lambda_cp=0.0)
    balancer.modulate()
    assert gradients(modalities) == {"text": [6.0], "audio": [2.0]}
    assert balancer.trace["conflict"].tolist() == pytest.approx([1.9, 0])
    assert (
        balancer.trace["dominance_after"].tolist() == balancer.trace["dominance"].tolist() == pytest.approx([3, 1 / 3])
    )


def test_who_learns_alone_is_not_held_back() -> None:
    modalities = Modalities(text=parameters(6), audio=[nn.Parameter(torch.zeros(1))])
    balancer = CP(modalities)
    balancer.modulate()
    assert gradients(modalities) == {"text": [6.0], "audio": []}
    assert not balancer.trace["exists"].any()


@every_count
@pytest.mark.parametrize("mode", ["gradient", "loss"])
def test_a_loss_without_slope_gives_no_nan(mode: str, count: int) -> None:
    model = toy(count)
    balancer = CP(encoders(model, names_of(count)), mode=mode)  # type: ignore[arg-type]
    step = step_of(model, data(count))
    loss = balancer(replace(step, loss=step.loss * 0))
    backward(loss)
    balancer.modulate()
    assert float(loss.detach()) == 0
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
    assert not balancer.trace["exists"].any()
    assert not any(torch.isnan(value.float()).any() for value in balancer.trace.values())


def test_a_modality_whose_features_are_frozen_is_a_constant() -> None:
    model, batch = toy(3), data(3)
    model.encoders["audio"].requires_grad_(False)
    balancer = CP(Modalities(text=model.encoders["text"], audio=model.heads["audio"]), mode="loss")
    backward(balancer(step_of(model, batch)))
    assert balancer.trace["norms"][1] == 0
    assert balancer.trace["penalty"].tolist() == [0.5, 0.5]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["detached", "others"])
def test_features_that_the_loss_does_not_know_are_an_error(kind: str) -> None:
    model, batch = toy(2), data(2)
    step = step_of(model, batch)
    assert step.features is not None
    other = {name: x.detach() if kind == "detached" else x * 1 for name, x in step.features.items()}
    with pytest.raises(ValueError, match=r"should be the very tensors that `Step.loss` was computed from"):
        CP(encoders(model, names_of(2)), mode="loss")(replace(step, features=other))


def test_features_are_matrices_of_every_modality() -> None:
    model = toy(2)
    step = step_of(model, data(2))
    assert step.features is not None
    balancer = CP(encoders(model, names_of(2)), mode="loss")
    with pytest.raises(ValueError, match=r"each modality in `Step.features`. Found \['text'\], missing \['audio'\]"):
        balancer(replace(step, features={"text": step.features["text"]}))
    with pytest.raises(ValueError, match=r"of shape \[B, d\]. Found {'text': \(8, 1, 4\), 'audio': \(8, 1, 4\)}"):
        balancer(replace(step, features={name: x[:, None] for name, x in step.features.items()}))


def test_the_penalty_teaches_nothing_where_no_gradients_are_wanted() -> None:
    model = toy(2)
    balancer = CP(encoders(model, names_of(2)), mode="loss")
    with torch.no_grad():
        step = step_of(model, data(2))
        assert balancer(step) is step.loss
    assert balancer.trace == {}


def test_it_adds_and_so_may_stand_anywhere_in_a_chain() -> None:
    model, names, batch = toy(3), names_of(3), data(3)
    own = encoders(model, names)
    step = step_of(model, batch)
    first = CP(own, mode="loss")(step) - step.loss
    second = SL(own)(step) - step.loss
    whole = Chain(AGM(own, alpha=0.0), CP(own, mode="loss"), SL(own))(step) - step.loss
    assert_close(whole, first + second)
    assert model.get_parameter(f"{FUSION[1]}.weight").grad is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_cp": -1}, r"Parameter `lambda_cp` should be non-negative. Found `lambda_cp = -1`"),
        ({"tolerance": -0.5}, r"Parameter `tolerance` should be non-negative. Found `tolerance = -0.5`"),
        ({"mode": "penalty"}, r"Parameter `mode` should be \"gradient\" or \"loss\". Found `mode = 'penalty'`"),
        ({"apply_to": "weights"}, r"Parameter `apply_to` should be"),
        ({"mode": "loss", "apply_to": "update"}, r"`apply_to` is for `mode=\"gradient\"`.* Leave it out"),
    ],
)
def test_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CP(Modalities(text=parameters(1), audio=parameters(1)), **arguments)  # type: ignore[arg-type]

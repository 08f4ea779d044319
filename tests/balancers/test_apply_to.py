"""Gradients scaled against steps scaled, and what clipping makes of the former."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.balancers.loop import Run, Setting, moved
from tests.balancers.toy import backward, data, encoders, names_of, step_of, toy
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.testing import assert_close

from equipoise import AGS, OGMGE, Chain, Modalities
from equipoise.core import ApplyTo, FactorScaling

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

ADAPTIVE: dict[str, Make] = {
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01, eps=1e-12),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.01, eps=1e-12, weight_decay=0.1),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.01, eps=1e-12),
}


def train(
    factors: Tensor | None, apply_to: ApplyTo, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
) -> Run:
    """Five steps with constant factors for three modalities; None is plain training."""
    run = Run(None, 3, optimizer=make)
    scaling = FactorScaling(encoders(run.model, names_of(3)), apply_to)
    scaling.attach(run.optimizer)
    for seed in range(5):
        run.optimizer.zero_grad()
        backward(step_of(run.model, data(3, seed=seed)).loss)
        if factors is not None:
            scaling(factors)
        run.optimizer.step()
    return run


FACTORS = torch.tensor([0.1, 1.0, 0.5], dtype=torch.float64)


def test_with_plain_sgd_the_two_agree() -> None:
    def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    gradient, update, plain = (
        train(factors, apply_to, sgd).parameters()  # type: ignore[arg-type]
        for factors, apply_to in [(FACTORS, "gradient"), (FACTORS, "update"), (None, "update")]
    )
    for name, value in gradient.items():
        assert_close(update[name], value, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(gradient["encoders.text.0.weight"], plain["encoders.text.0.weight"], rtol=1e-3)


@pytest.mark.parametrize("make", ADAPTIVE.values(), ids=ADAPTIVE)
def test_adam_cancels_a_constant_factor_on_gradients_and_not_on_its_step(make: Make) -> None:
    before = toy(3)
    start = {name: p.detach() for name, p in before.named_parameters()}
    plain, gradient, update = (
        moved(train(factors, apply_to, make), start)  # type: ignore[arg-type]
        for factors, apply_to in [(None, "gradient"), (FACTORS, "gradient"), (FACTORS, "update")]
    )
    for name in start:
        assert_close(gradient[name], plain[name], rtol=1e-4, atol=1e-7)
    for modality, factor in zip(names_of(3), FACTORS.tolist(), strict=True):
        name = f"encoders.{modality}.0.weight"
        ratio = float(update[name].norm() / plain[name].norm())
        assert ratio == pytest.approx(factor, rel=0.15)  # a path of five steps, each from where the last one led


def test_one_step_of_adam_is_scaled_exactly() -> None:
    def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)

    runs = [Run(None, 3, optimizer=adam) for _ in range(2)]
    start = runs[0].parameters()
    scaling = FactorScaling(encoders(runs[0].model, names_of(3)), "update")
    scaling.attach(runs[0].optimizer)
    for run in runs:
        backward(step_of(run.model, data(3)).loss)
    scaling(FACTORS)
    for run in runs:
        run.optimizer.step()
    scaled, plain = (moved(run, start) for run in runs)
    for name, value in scaled.items():
        group, modality, *_ = name.split(".")
        factor = FACTORS.tolist()[names_of(3).index(modality)] if group == "encoders" else 1.0
        assert_close(value, plain[name] * factor, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("method", ["ags", "ogm"])
def test_a_closure_that_modulates_inside_of_the_step_is_scaled_as_well(method: str) -> None:
    """Lightning, and LBFGS, run backward within ``optimizer.step(closure)``."""

    def build(model: nn.Module, names: tuple[str, ...]) -> AGS | OGMGE:
        modalities = encoders(model, names)  # type: ignore[arg-type]
        if method == "ags":
            return AGS(modalities, alpha=1.0, apply_to="update")
        return OGMGE(modalities, noise=False, apply_to="update")

    run, inside = Run(Setting(build, update=True), 3), Run(Setting(build, update=True), 3)
    run.train(data(3))

    def closure() -> float:
        inside.backward(data(3))
        return 0.0

    inside.optimizer.step(closure)
    assert_close(inside.parameters(), run.parameters())


def test_stages_over_the_same_parameters_multiply() -> None:
    def build(model: nn.Module, names: tuple[str, ...]) -> Chain:
        first, second = (AGS(encoders(model, names), alpha=1.0, apply_to="update") for _ in range(2))  # type: ignore[arg-type]
        return Chain(first, second)

    run, plain = Run(Setting(build), 2), Run(None, 2)
    start = run.parameters()
    for each in (run, plain):
        each.train(data(2))
    assert isinstance(run.balancer, Chain)
    factors = [part.trace["factors"] for part in run.balancer]
    assert_close(factors[0], factors[1])
    assert factors[0].min() < 1
    for i, modality in enumerate(names_of(2)):
        name = f"encoders.{modality}.0.weight"
        assert_close(moved(run, start)[name], moved(plain, start)[name] * factors[0][i] ** 2)


def test_without_an_optimizer_an_update_cannot_be_scaled() -> None:
    run = Run(None, 2)
    balancer = AGS(encoders(run.model, names_of(2)), apply_to="update")
    backward(step_of(run.model, data(2)).loss)
    with pytest.raises(RuntimeError, match=r"Call `balancer.attach\(optimizer\)` once before training"):
        balancer.modulate()


def test_attaching_anew_leaves_the_optimizer_before() -> None:
    run = Run(None, 3)
    scaling = FactorScaling(encoders(run.model, names_of(3)), "update")
    other = torch.optim.SGD(run.model.parameters(), lr=0.1)
    scaling.attach(run.optimizer)
    scaling.attach(other)
    start = run.parameters()
    backward(step_of(run.model, data(3)).loss)
    scaling(torch.zeros(3))
    run.optimizer.step()
    assert not torch.equal(run.parameters()["encoders.text.0.weight"], start["encoders.text.0.weight"])


def test_an_unknown_apply_to_is_named() -> None:
    with pytest.raises(ValueError, match="Found `apply_to = 'step'`"):
        AGS(encoders(toy(2), names_of(2)), apply_to="step")  # type: ignore[arg-type]


def test_clipping_the_global_norm_undoes_a_scaling_that_all_share() -> None:
    """Why the order is written down: modulate, then clip. The share that differs survives, the common one does not."""

    def clipped(factors: list[float], *, clip_first: bool = False) -> Tensor:
        text, audio = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
        text.grad, audio.grad = (torch.full((1,), value, dtype=torch.float64) for value in (30.0, 40.0))
        scaling = FactorScaling(Modalities(text=[text], audio=[audio]))
        if clip_first:
            clip_grad_norm_([text, audio], 1.0)
        scaling(torch.tensor(factors, dtype=torch.float64))
        if not clip_first:
            clip_grad_norm_([text, audio], 1.0)
        return torch.cat([text.grad, audio.grad])

    plain = clipped([1.0, 1.0])
    assert_close(plain, torch.tensor([0.6, 0.8], dtype=torch.float64), rtol=1e-6, atol=0.0)
    assert_close(clipped([0.25, 0.25]), plain, rtol=1e-6, atol=0.0)  # undone
    assert_close(clipped([0.25, 0.25], clip_first=True), plain / 4, rtol=1e-6, atol=0.0)
    one_held_back = clipped([0.25, 1.0])
    assert_close(one_held_back[0] / one_held_back[1], plain[0] / plain[1] / 4, rtol=1e-6, atol=0.0)
    assert one_held_back[1] > plain[1]  # what text gave up, audio got

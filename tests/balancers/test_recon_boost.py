"""ReconBoost: losses worked by hand, stages counted, gradients derived again with plain numbers."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch
from tests.balancers.loop import Run, Setting, same
from tests.balancers.toy import backward, data, encoders, names_of, step_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from equipoise import Modalities, ReconBoost, Step
from equipoise.functional import boosting_loss, memory_loss


def test_losses_by_hand() -> None:
    # p = (1/4, 3/4), q = (1/2, 1/2), y = 0: -log p_y = ln 4; KL(q ‖ p) = 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4)
    # = 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3. q_y = 1/2.
    own, others, y = torch.tensor([[0.0, log(3)]]), torch.zeros(1, 2), torch.tensor([0])
    assert boosting_loss(own, others, y, strength=0.4).item() == pytest.approx(log(4) - 0.2 * log(4 / 3))
    found = boosting_loss(own, others, y, strength=0.4, reconcilement="true_class").item()
    assert found == pytest.approx((1 - 0.4 / 2) * log(4))
    # Probabilities (1/4, 3/4) against (1/2, 1/2): squares 1/16 twice.
    assert memory_loss(own, others).item() == pytest.approx(1 / 16)


def test_a_residual_by_hand() -> None:
    # Residuals 6 - 4 = 2 and -1 - 1 = -2; fitted by 1 and 0: errors 1 and 2, squares 1 and 4.
    own, others, y = torch.tensor([1.0, 0.0]), torch.tensor([4.0, 1.0]), torch.tensor([6.0, -1.0])
    for strength in (0.0, 0.9):
        assert boosting_loss(own, others, y, strength).item() == pytest.approx(2.5)
    assert boosting_loss(own[:, None], others[:, None], y, 0.0).item() == pytest.approx(2.5)  # [B, 1] against [B]


@pytest.mark.parametrize("reconcilement", ["kl", "true_class"])
def test_slopes(reconcilement: str) -> None:
    """(1 - λ) p - (y - λ q), or (1 - λ q_y)(p - y); nothing for the others."""
    strength = 0.3
    own, others = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    y = torch.tensor([0, 3, 1, 1, 2])
    backward(boosting_loss(own, others, y, strength, reconcilement))  # type: ignore[arg-type]
    assert others.grad is None
    for i in range(5):
        p = [exp(v) / sum(exp(w) for w in own[i].tolist()) for v in own[i].tolist()]
        q = [exp(v) / sum(exp(w) for w in others[i].tolist()) for v in others[i].tolist()]
        for c in range(4):
            hit = float(c == y[i])
            if reconcilement == "kl":
                expected = (1 - strength) * p[c] - (hit - strength * q[c])
            else:
                expected = (1 - strength * q[int(y[i])]) * (p[c] - hit)
            assert own.grad is not None
            assert own.grad[i, c].item() == pytest.approx(expected / 5, abs=1e-6)


def test_what_the_others_get_wrong_counts() -> None:
    """The released form weights a sample; only KL pulls at the very class that the others mistake it for."""
    own, y = torch.zeros(1, 3, requires_grad=True), torch.tensor([0])
    mistaken = torch.tensor([[0.0, 5.0, 0.0]])
    (kl,) = torch.autograd.grad(boosting_loss(own, mistaken, y, 0.5), own)
    (weighted,) = torch.autograd.grad(boosting_loss(own, mistaken, y, 0.5, "true_class"), own)
    assert kl[0, 1] > kl[0, 2] + 0.1
    assert weighted[0, 1] == weighted[0, 2]


def test_the_memory_teaches() -> None:
    """In released code both of its sides are detached."""
    own, before = torch.zeros(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    backward(memory_loss(own, before))
    assert own.grad is not None
    assert own.grad.abs().max() > 0
    assert before.grad is None


def run_of(count: int, **arguments: Any) -> Run:
    return Run(Setting(lambda m, n: ReconBoost(encoders(m, n), **arguments), adds=True), count)


@pytest.mark.parametrize(
    ("epochs", "rectify", "first", "turns"),
    [
        (1, 0, 0, "tavtav"),
        (2, 1, 0, "tt-aa-vv-tt-"),
        (1, 2, 1, "-t--a--v--t"),
        (4, 4, 0, "tttt----aaaa----vvvv----t"),
    ],
)
def test_turns(epochs: int, rectify: int, first: int, turns: str) -> None:
    run = run_of(3, epochs=epochs, rectify=rectify, from_epoch=first)
    assert isinstance(run.balancer, ReconBoost)
    for letter in turns:
        assert (run.balancer.turn or "-")[0] == letter
        run.balancer.end_epoch()


def test_a_frozen_modality_has_no_turn() -> None:
    run = run_of(3, epochs=1, rectify=0)
    assert isinstance(run.balancer, ReconBoost)
    run.model.encoders["audio"].requires_grad_(False)
    found = []
    for _ in range(4):
        found.append(run.balancer.turn)
        run.train(data(3))
        run.balancer.end_epoch()
    assert found == ["text", "vision", "text", "vision"]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("reconcilement", ["kl", "true_class"])
def test_training_against_the_equations(count: int, regression: bool, reconcilement: str) -> None:
    strength, memory, lr = 0.3, 0.7, 0.1
    run = run_of(count, epochs=1, rectify=1, strength=strength, memory=memory, reconcilement=reconcilement)
    other = Run(None, count)
    names = names_of(count)
    assert run.balancer is not None
    for epoch in range(6):
        batch = data(count, seed=epoch)
        if regression:
            batch = replace(batch, target=F.one_hot(batch.target, 3).double() * 2 - 1)

        def step(model: Any, batch: Any = batch) -> Step:
            if not regression:
                return step_of(model, batch)
            features = model.encode(batch.inputs)
            loss = (model.fuse(features) - batch.target).abs().mean()
            return Step(loss, target=batch.target, unimodal=model.unimodal(features))

        run.optimizer.zero_grad()
        backward(run.balancer(step(run.model)))
        run.balancer.modulate()
        run.optimizer.step()

        expected = step(other.model)
        assert expected.unimodal is not None
        turn, before = names[epoch // 2 % count], names[(epoch // 2 - 1) % count]
        loss = expected.loss
        if epoch % 2 == 0:
            rest = sum(expected.unimodal[n].detach() for n in names if n != turn)
            assert isinstance(rest, Tensor)
            loss = torch.zeros((), dtype=torch.float64)
            for i, y in enumerate(batch.target):
                own, rival = expected.unimodal[turn][i], rest[i]
                if regression:
                    loss = loss + ((y - rival - own) ** 2).sum() / 3
                    continue
                p, q = torch.exp(own) / torch.exp(own).sum(), torch.exp(rival) / torch.exp(rival).sum()
                if reconcilement == "kl":
                    apart = torch.stack([q[c] * torch.log(q[c] / p[c]) for c in range(3)]).sum()
                    loss = loss - torch.log(p[y]) - strength * apart
                else:
                    loss = loss - torch.log(p[y]) + strength * q[y] * torch.log(p[y])
                if epoch > 0:
                    last = expected.unimodal[before][i].detach()
                    loss = loss + memory * ((p - torch.exp(last) / torch.exp(last).sum()) ** 2).sum() / 3
            loss = loss / len(batch.target)
        parameters = list(other.model.parameters())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(lr * gradient)
        for key, value in run.parameters().items():
            assert_close(value, other.parameters()[key])
        run.balancer.end_epoch()


def test_those_that_wait_stay_where_they_are_under_weight_decay_and_momentum() -> None:
    run = run_of(3, epochs=1, rectify=1)
    assert run.balancer is not None
    run.optimizer = torch.optim.AdamW(run.model.parameters(), lr=0.1, weight_decay=0.5)
    run.balancer.window.epoch = 1
    run.train(data(3))  # all together: every parameter has averages now
    run.balancer.end_epoch()
    before = run.parameters()
    run.train(data(3))
    after = run.parameters()
    moved = {key.rsplit(".", 1)[0].removesuffix(".0") for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"encoders.audio", "heads.audio"}


def test_those_that_wait_have_no_gradient_even_where_an_output_passes_through_them() -> None:
    text, audio = nn.Linear(1, 1), nn.Linear(1, 1)
    balancer = ReconBoost(Modalities(text=text, audio=audio))
    x, y = torch.ones(2, 1), torch.zeros(2, 1)
    crossed = {"text": text(x) * audio(x), "audio": audio(x)}
    loss = balancer(Step(F.l1_loss(crossed["text"] + crossed["audio"], y), target=y, unimodal=crossed))
    backward(loss)
    assert audio.weight.grad is not None
    balancer.modulate()
    assert text.weight.grad is not None
    assert [p.grad for p in audio.parameters()] == [None, None]


def test_where_all_learn_the_loss_is_as_it_was() -> None:
    run, plain = run_of(3, epochs=1, rectify=1), Run(None, 3)
    assert run.balancer is not None
    run.balancer.window.epoch = 1
    for each in (run, plain):
        each.train(data(3))
    assert same(run.parameters(), plain.parameters())
    assert run.balancer.trace["trained"].tolist() == [1, 1, 1]


def test_boosting_makes_the_sum_right() -> None:
    """y = t + a with the two apart: each fits what the other leaves, and the sum fits all."""
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    y = x[:, 0] + 2 * x[:, 1]
    text, audio = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizer = torch.optim.SGD([*text.parameters(), *audio.parameters()], lr=0.2)
    balancer = ReconBoost(Modalities(text=text, audio=audio), epochs=1, rectify=0)
    for _ in range(12):
        for _ in range(10):
            own = {"text": text(x[:, :1])[:, 0], "audio": audio(x[:, 1:])[:, 0]}
            optimizer.zero_grad()
            backward(balancer(Step(F.l1_loss(own["text"] + own["audio"], y), target=y, unimodal=own)))
            balancer.modulate()
            optimizer.step()
        balancer.end_epoch()
    assert text.weight.item() == pytest.approx(1.0, abs=0.01)
    assert audio.weight.item() == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "`epochs` should be at least 1. Found `epochs = 0`"),
        ({"rectify": -1}, "`rectify` should be non-negative. Found `rectify = -1`"),
        ({"strength": 1.0}, r"`strength` should lie in \[0, 1\). Found `strength = 1.0`"),
        ({"memory": -0.5}, "`memory` should be non-negative. Found `memory = -0.5`"),
        ({"reconcilement": "l2"}, """`reconcilement` should be "kl" or "true_class". Found `reconcilement = 'l2'`"""),
    ],
)
def test_parameters_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of(2, **arguments)


def test_misuse() -> None:
    run = run_of(2)
    assert run.balancer is not None
    step = step_of(run.model, data(2))
    assert step.unimodal is not None
    with pytest.raises(ValueError, match=r"`Step.unimodal`. Found \['text'\], missing \['audio'\]"):
        run.balancer(replace(step, unimodal={"text": step.unimodal["text"]}))
    with pytest.raises(ValueError, match=r"trains `text` by its own output. Found `Step.unimodal` detached"):
        run.balancer(replace(step, unimodal={name: x.detach() for name, x in step.unimodal.items()}))
    probes = run.model.unimodal({name: x.detach() for name, x in run.model.encode(data(2).inputs).items()})
    backward(run.balancer(replace(step, unimodal=probes)))
    with pytest.raises(RuntimeError, match="found no gradient"):
        run.balancer.modulate()

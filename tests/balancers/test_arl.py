"""ARL: weights worked by hand, and whole steps derived again with plain numbers."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch
from tests.balancers.loop import Run, Setting, same
from tests.balancers.toy import backward, data, encoders, names_of, step_of
from torch.nn import functional as F
from torch.testing import assert_close

from equipoise import ARL, Modalities, Step
from equipoise.functional import arl_weights


def softmax(*values: float) -> list[float]:
    return [exp(v) / sum(exp(w) for w in values) for v in values]


@pytest.mark.parametrize(
    ("variances", "dependences", "temperature", "expected"),
    [
        # Equal: equal.
        ([2.0, 2.0], [5.0, 5.0], 8.0, [0.5, 0.5]),
        # Shares of variance 2/5 and 3/5: inverses 5/2 and 5/3, shares 3/5 and 2/5. Equal use: halves.
        ([2.0, 3.0], [1.0, 1.0], 8.0, softmax(8 * 0.3, 8 * 0.2)),
        # Equal variance, use 1/4 and 3/4: each gets the other's, times a half.
        ([1.0, 1.0], [1.0, 3.0], 4.0, softmax(4 * 0.375, 4 * 0.125)),
        # Shares 1/10 and 9/10: the first is held at 0.3, so inverses 10/3 and 10/9, shares 3/4 and 1/4.
        ([1.0, 9.0], [1.0, 1.0], 8.0, softmax(3.0, 1.0)),
        # Three: shares 1/4, 1/4, 1/2 are above 0.2: inverses 4, 4, 2, shares 2/5, 2/5, 1/5. Uses 0, 1/2, 1/2: means
        # of the others 1/2, 1/4, 1/4. Times (3/2)² = 9/4.
        ([1.0, 1.0, 2.0], [0.0, 1.0, 1.0], 4.0, softmax(9 * 0.2, 9 * 0.1, 9 * 0.05)),
        # No temperature, nothing to go by: equal.
        ([1.0, 5.0], [3.0, 1.0], 0.0, [0.5, 0.5]),
        ([0.0, 0.0], [0.0, 0.0], 8.0, [0.5, 0.5]),
    ],
)
def test_weights(variances: list[float], dependences: list[float], temperature: float, expected: list[float]) -> None:
    assert arl_weights(torch.tensor(variances), torch.tensor(dependences), temperature).tolist() == pytest.approx(
        expected
    )


def test_the_surer_and_the_less_used_get_more() -> None:
    for count in (2, 3, 4):
        ones = torch.ones(count)
        surer, used = ones.clone(), ones.clone()
        surer[0], used[0] = 0.8, 2.0
        assert arl_weights(surer, ones, 8.0).argmax() == 0
        assert arl_weights(ones, used, 8.0).argmin() == 0


def one(value: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(value))


def test_a_step_for_classes() -> None:
    # text says (0, 0): entropy ln 2, size 0. audio says (ln 3, 0): 1/4 ln 4 + 3/4 ln 4/3, size ln 3.
    text, audio = one(0.0), one(log(3))
    balancer = ARL(Modalities(text=[text], audio=[audio]), gamma=4.0, temperature=8.0, warmup=0)
    own = {name: torch.stack([x, torch.zeros(())])[None] for name, x in (("text", text), ("audio", audio))}
    target = torch.tensor([0])
    plain = text + 2 * audio
    loss = balancer(Step(plain, target=target, unimodal=own, criterion=F.cross_entropy))
    assert loss.item() == pytest.approx(2 * log(3) + 4 * (log(2) + log(4 / 3)))
    backward(loss)
    balancer.modulate()
    first, second = log(2), 0.25 * log(4) + 0.75 * log(4 / 3)
    q = second / (first + second)  # inverses of the two, as a share; both shares of variance are above 0.3
    weights = softmax(8 * q * 1, 8 * (1 - q) * 0)  # text: none of the use is its own
    assert balancer.trace["variances"].tolist() == pytest.approx([first, second])
    assert balancer.trace["dependences"].tolist() == pytest.approx([0, log(3)])
    assert text.grad is not None
    assert audio.grad is not None
    # Slopes of the unimodal losses: 1/2 - 1 and 3/4 - 1, four times.
    assert text.grad.item() == pytest.approx((1 + weights[0]) * (1 - 2))
    assert audio.grad.item() == pytest.approx((1 + weights[1]) * (2 - 1))


def test_a_step_for_regression() -> None:
    # Errors of text 1 and 3: variance 1; of audio 5 and 5 (a bias is no variance): 0, held at 0.3 against 1.
    text, audio = one(1.0), one(1.0)
    balancer = ARL(Modalities(text=[text], audio=[audio]), gamma=0.0, temperature=8.0, warmup=0)
    target = torch.tensor([1.0, -1.0])
    own = {"text": text * torch.tensor([2.0, 2.0]), "audio": audio * torch.tensor([6.0, 4.0])}
    backward(balancer(Step(text + audio, target=target, unimodal=own)))
    balancer.modulate()
    assert balancer.trace["variances"].tolist() == pytest.approx([1.0, 0.0])
    assert balancer.trace["dependences"].tolist() == pytest.approx([2.0, 5.0])
    # q: inverses 1 and 10/3, shares 3/13 and 10/13. d: shares 2/7 and 5/7.
    weights = softmax(8 * 3 / 13 * 5 / 7, 8 * 10 / 13 * 2 / 7)
    assert balancer.trace["factors"].tolist() == pytest.approx([1 + w for w in weights])


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("regression", [False, True])
def test_training_against_the_equations(count: int, regression: bool) -> None:
    """One epoch of warming up, then factors; SGD by hand."""
    gamma, temperature = 3.0, 5.0
    setting = Setting(lambda m, n: ARL(encoders(m, n), gamma=gamma, temperature=temperature, warmup=1), adds=True)
    run, other, names = Run(setting, count), Run(None, count), names_of(count)
    assert run.balancer is not None
    unequal = False
    for epoch in range(3):
        for seed in range(2):
            batch = data(count, seed=10 * epoch + seed)
            if regression:
                batch = replace(batch, target=batch.inputs["text"] * 2)

            def step(model: Any, batch: Any = batch) -> Step:
                if not regression:
                    return step_of(model, batch)
                features = model.encode(batch.inputs)
                loss = F.l1_loss(model.fuse(features), batch.target)
                return Step(loss, target=batch.target, unimodal=model.unimodal(features), criterion=F.l1_loss)

            run.optimizer.zero_grad()
            backward(run.balancer(step(run.model)))
            run.balancer.modulate()
            run.optimizer.step()

            expected = step(other.model)
            assert expected.unimodal is not None
            weight = 1.0 if epoch == 0 else gamma
            loss, variance, use = expected.loss, {}, {}
            for name in names:
                criterion = F.l1_loss if regression else F.cross_entropy
                loss = loss + weight * criterion(expected.unimodal[name], batch.target)
                rows = expected.unimodal[name].tolist()
                use[name] = sum(abs(v) for row in rows for v in row) / len(rows)
                if regression:
                    goals = batch.target.tolist()
                    spreads = []
                    for c in range(3):
                        errors = [row[c] - goal[c] for row, goal in zip(rows, goals, strict=True)]
                        mean = sum(errors) / len(errors)
                        spreads.append(sum((e - mean) ** 2 for e in errors) / len(errors))
                    variance[name] = sum(spreads) / 3
                else:
                    variance[name] = sum(-p * log(p) for row in rows for p in softmax(*row)) / len(rows)
            held = {n: 1 / max(variance[n] / sum(variance.values()), 0.6 / count) for n in names}
            exponents = []
            for name in names:
                d = sum(use[n] for n in names if n != name) / (count - 1) / sum(use.values())
                exponents.append(temperature * held[name] / sum(held.values()) * count / 2 * d * count / 2)
            factors = dict(zip(names, [1 + w for w in softmax(*exponents)], strict=True))
            if epoch == 0:
                factors = dict.fromkeys(names, 1.0)
            unequal |= max(factors.values()) > min(factors.values()) + 0.05
            other.optimizer.zero_grad()
            backward(loss)
            for name in names:
                for parameter in other.model.encoders[name].parameters():
                    assert parameter.grad is not None
                    parameter.grad *= factors[name]
            other.optimizer.step()
            for key, value in run.parameters().items():
                assert_close(value, other.parameters()[key], rtol=1e-5, atol=1e-7)
        run.balancer.end_epoch()
    assert unequal


def test_warming_up_is_plain_multi_loss_of_weight_one_at_most() -> None:
    for gamma, weight in ((4.0, 1.0), (0.25, 0.25), (0.0, 0.0)):
        build = Setting(lambda m, n, gamma=gamma: ARL(encoders(m, n), gamma=gamma))  # type: ignore[misc]
        run, plain = Run(build, 2), Run(None, 2)
        assert run.balancer is not None
        run.train(data(2))
        step = step_of(plain.model, data(2))
        assert step.unimodal is not None
        added = torch.stack([F.cross_entropy(x, data(2).target) for x in step.unimodal.values()]).sum()
        plain.optimizer.zero_grad()
        backward(step.loss + weight * added)
        plain.optimizer.step()
        for key, value in run.parameters().items():
            assert_close(value, plain.parameters()[key])
        assert run.balancer.trace["factors"].tolist() == [1.0, 1.0]


def test_without_gamma_no_criterion_is_read() -> None:
    run, plain = (Run(Setting(lambda m, n: ARL(encoders(m, n), gamma=0.0)), 2), Run(None, 2))
    assert run.balancer is not None
    assert run.balancer.needs == {"unimodal", "target"}
    run.train(data(2))  # warming up, and no unimodal losses
    plain.train(data(2))
    assert same(run.parameters(), plain.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -1.0}, "`gamma` should be non-negative. Found `gamma = -1.0`"),
        ({"temperature": -8.0}, "`temperature` should be non-negative. Found `temperature = -8.0`"),
        ({"warmup": -1}, "`warmup` should be non-negative. Found `warmup = -1`"),
        ({"apply_to": "loss"}, "`apply_to` should be"),
    ],
)
def test_parameters_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ARL(Modalities(text=[one(0.0)], audio=[one(0.0)]), **arguments)

from __future__ import annotations

from collections.abc import Callable
from math import inf, log10
from typing import Any

import pytest
import torch
from tests.balancers.loop import Run, Setting, moved, same
from tests.balancers.toy import Data, Toy, backward, data, encoders, names_of, step_of, toy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from equipoise import Greedy, Modalities, Step
from equipoise.functional import effective_updates, speed_gaps

CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"classification": F.cross_entropy, "regression": F.mse_loss}


def some(*names: str) -> Modalities:
    return Modalities(**{name: nn.Linear(1, 1) for name in names or ("text", "audio")})


def test_effective_updates_by_hand() -> None:
    # text: (3² + 4²) / (1² + 2²) = 5; what is frozen counts in neither. audio: 1 / 4. Without gradient or size: 0.
    values: dict[str, list[tuple[float, float | None]]] = {
        "text": [(1.0, 3.0), (2.0, 4.0), (9.0, None)],
        "audio": [(2.0, 1.0)],
        "vision": [(3.0, None)],
        "touch": [(0.0, 5.0)],
    }
    groups: dict[str, list[nn.Parameter]] = {}
    for name, pairs in values.items():
        groups[name] = [nn.Parameter(torch.tensor([value])) for value, _ in pairs]
        for parameter, (_, gradient) in zip(groups[name], pairs, strict=True):
            parameter.grad = None if gradient is None else torch.tensor([gradient])
    assert effective_updates(Modalities(**groups)).tolist() == pytest.approx([5.0, 0.25, 0.0, 0.0])


GAPS: dict[str, tuple[list[float], list[float] | None, list[float]]] = {
    # Logarithms 0 and 2: the first lags by 2, the second by -2.
    "two": ([1.0, 100.0], None, [2.0, -2.0]),
    # 0, 3, 1: (3 + 1)/2 - 0, (0 + 1)/2 - 3, (0 + 3)/2 - 1.
    "three": ([1.0, 1000.0, 10.0], None, [2.0, -2.5, 0.5]),
    # 0 - 1 and 2 - 1 make up the same as above; 0 - 1 and 2 - 4 do not: -2 + 1 = -1.
    "a fusion that all share": ([1.0, 100.0], [10.0, 10.0], [2.0, -2.0]),
    "a fusion of each": ([1.0, 100.0], [10.0, 10000.0], [-1.0, 1.0]),
    "one that has not learnt is passed over": ([1.0, 0.0, 10.0], None, [1.0, -inf, -1.0]),
    "nor is it compared with": ([1.0, 0.0], None, [-inf, -inf]),
    "equal": ([0.3, 0.3, 0.3, 0.3], None, [0.0, 0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize(("energies", "fusion", "expected"), GAPS.values(), ids=GAPS)
def test_gaps_by_hand(energies: list[float], fusion: list[float] | None, expected: list[float]) -> None:
    found = speed_gaps(torch.tensor(energies), None if fusion is None else torch.tensor(fusion))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


class Sum(nn.Module):
    """φ = t x_t + a x_a, one number each, with squared errors."""

    def __init__(self, t: float, a: float) -> None:
        super().__init__()
        self.text, self.audio = (nn.Linear(1, 1, bias=False) for _ in range(2))
        nn.init.constant_(self.text.weight, t)
        nn.init.constant_(self.audio.weight, a)

    def step(self, x_t: list[float], x_a: list[float], y: list[float]) -> Step:
        inputs = {"text": torch.tensor(x_t)[:, None], "audio": torch.tensor(x_a)[:, None]}

        def predict(kept: frozenset[str]) -> Tensor:
            terms = [part(inputs[name] * (name in kept)) for name, part in self.named_children()]
            return torch.stack(terms).sum(dim=0)

        logits, target = predict(frozenset({"text", "audio"})), torch.tensor(y)[:, None]
        return Step(F.mse_loss(logits, target), logits, target, predict=predict, criterion=F.mse_loss)

    def take(self, balancer: Greedy, step: Step) -> tuple[object, list[object]]:
        """The loss, and the gradients that are left."""
        self.zero_grad()
        loss = balancer(step)
        backward(loss)
        balancer.modulate()
        return loss.item(), [None if p.grad is None else p.grad.item() for p in self.parameters()]


def test_steps_by_hand() -> None:
    model = Sum(1.0, 1.0)
    balancer = Greedy(Modalities(text=model.text, audio=model.audio), steps=3)
    # φ = (2, 4) + (1, 1); y = 0. Loss (9 + 25)/2; gradients 2 · (3 · 2 + 5 · 4)/2 = 26 and 3 + 5 = 8.
    step = ([2.0, 4.0], [1.0, 1.0], [0.0, 0.0])
    assert model.take(balancer, model.step(*step)) == (17.0, [26.0, 8.0])
    assert balancer.trace["lagging"].tolist() == [False, False]
    assert balancer.trace["speeds"].tolist() == pytest.approx([2 * log10(26), 2 * log10(8)])
    # Audio lags. Alone, and with nothing from text yet, φ = (1, 1): loss 1, gradient 2; text contributes 3 on average.
    assert model.take(balancer, model.step(*step)) == (1.0, [None, 2.0])
    assert balancer.trace["lagging"].tolist() == [False, True]
    # φ = (1, 1) + 3: loss 16, gradient 8. Now text contributes (4 + 8)/2 = 6, and 0.9 · 3 + 0.1 · 6 = 3.3 from here on.
    assert model.take(balancer, model.step([4.0, 8.0], *step[1:])) == (16.0, [None, 8.0])
    assert model.take(balancer, model.step(*step)) == (pytest.approx(4.3**2), [None, pytest.approx(8.6)])
    # Three were due: a regular step, whose energies are added.
    assert model.take(balancer, model.step(*step)) == (17.0, [26.0, 8.0])
    assert balancer.trace["lagging"].tolist() == [False, False]
    assert balancer.trace["speeds"].tolist() == pytest.approx([log10(2 * 26**2), log10(2 * 8**2)])
    # And audio again, with what text contributed last: 0.9 · 3.3 + 0.1 · 3.
    assert model.take(balancer, model.step(*step)) == (pytest.approx(4.27**2), [None, pytest.approx(8.54)])


def test_each_modality_has_an_average_of_its_own() -> None:
    """In the authors' code the first one's stands for both."""
    model = Sum(1.0, 1.0)
    balancer = Greedy(Modalities(text=model.text, audio=model.audio), steps=1)
    loud_text, loud_audio = ([10.0], [1.0], [0.0]), ([1.0], [100.0], [0.0])
    model.take(balancer, model.step(*loud_text))
    assert model.take(balancer, model.step(*loud_text))[0] == 1.0  # audio alone
    model.take(balancer, model.step(*loud_audio))
    assert model.take(balancer, model.step(*loud_audio))[0] == 1.0  # text alone: no word of audio's average of 10
    model.take(balancer, model.step(*loud_audio))
    assert model.take(balancer, model.step(*loud_audio))[0] == (1.0 + 100.0) ** 2


def of(model: Toy, batch: Data, task: str) -> Step:
    full = step_of(model, batch)
    assert full.logits is not None
    assert full.predict is not None
    if task == "classification":
        return full
    target, predict = batch.target.double() - 1, full.predict
    logits = full.logits[:, 0]
    rest = 0.1 * sum(x.square().mean() for x in (full.unimodal or {}).values())
    return Step(
        F.mse_loss(logits, target) + rest,
        logits,
        target,
        predict=lambda kept: predict(kept)[:, 0],
        criterion=F.mse_loss,
    )


@pytest.mark.parametrize("fusion", [False, True], ids=["shared", "fusion"])
@pytest.mark.parametrize("task", CRITERIA)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_against_loops(count: int, task: str, fusion: bool) -> None:
    """Regular and re-balancing steps, losses and gradients, from the equations; two conditional speeds for two."""
    names, alpha, length = names_of(count), 0.05, 2
    model = toy(count)
    through = Modalities(**{name: model.projections[name] for name in names}) if fusion else None
    balancer = Greedy(encoders(model, names), alpha=alpha, steps=length, fusion=through)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    own, other = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    average: dict[str, list[float]] = {}
    left, who = 0, ""
    phases: list[str] = []

    def energy(module: nn.Module) -> float:
        pairs = [
            (x, g)
            for p in module.parameters()
            for x, g in zip(p.flatten().tolist(), p.grad.flatten().tolist(), strict=True)  # type: ignore[union-attr]
        ]
        return float(sum(g * g for _, g in pairs) / sum(x * x for x, _ in pairs))

    for seed in range(14):
        step = of(model, data(count, seed=seed), task)
        if left == 0 and seed and not phases[-1]:
            # s(others | m): how fast the others come through to m's branch, for how fast m itself learns.
            speed = {m: log10((other[m] if fusion else 1.0) / own[m]) for m in names}
            gaps = {m: speed[m] - sum(speed[j] for j in names if j != m) / (count - 1) for m in names}
            if max(gaps.values()) > alpha:
                who, left = max(gaps, key=lambda m: gaps[m]), length
        expected = step.loss
        if left:
            assert step.predict is not None
            alone = step.predict(frozenset({who}))
            gone = (step.logits - alone).detach()  # type: ignore[operator]
            shift = alone.new_tensor(average.get(who, [0.0] * gone[0].numel())).view(gone.shape[1:])
            criterion = CRITERIA[task]
            expected = expected - criterion(step.logits, step.target) + criterion(alone + shift, step.target)  # type: ignore[arg-type]
            mean = [sum(column) / len(gone) for column in zip(*gone.reshape(len(gone), -1).tolist(), strict=True)]
            average[who] = [0.9 * a + 0.1 * b for a, b in zip(average.get(who, mean), mean, strict=True)]
        wanted = torch.autograd.grad(expected, list(model.parameters()), retain_graph=True, allow_unused=True)
        optimizer.zero_grad()
        loss = balancer(step)
        assert_close(loss, expected)
        backward(loss)
        balancer.modulate()
        assert balancer.trace["lagging"].tolist() == [bool(left) and name == who for name in names]
        for (name, p), gradient in zip(model.named_parameters(), wanted, strict=True):
            part, modality, *_ = name.split(".")
            if left and part == "encoders" and modality != who:
                assert p.grad is None
            elif gradient is not None:
                assert p.grad is not None
                assert_close(p.grad, gradient)
        phases.append(who if left else "")
        if left:
            left -= 1
        else:
            for name in names:
                own[name] += energy(model.encoders[name])
                other[name] += energy(model.projections[name])
            assert balancer.trace["speeds"].tolist() == pytest.approx([log10(own[name]) for name in names], abs=1e-5)
        optimizer.step()
    assert phases.count("") >= 4
    assert len(phases) - phases.count("") >= 4


def test_the_others_stand_still_under_adamw() -> None:
    """A gradient of zero would still let weight decay and momentum move them."""
    setting = Setting(lambda m, n: Greedy(encoders(m, n), steps=1))
    run = Run(setting, 3, optimizer=lambda ps: torch.optim.AdamW(ps, lr=0.1, weight_decay=0.5))
    run.train(data(3))
    before = run.parameters()
    run.train(data(3))
    assert run.balancer is not None
    lagging = run.balancer.trace["lagging"].tolist()
    assert sum(lagging) == 1
    for name, way in moved(run, before).items():
        part, modality, *_ = name.split(".")
        still = part == "encoders" and not lagging[names_of(3).index(modality)]
        assert bool((way == 0).all()) == still, name


def test_a_threshold_that_nobody_exceeds_is_plain_training() -> None:
    run, plain = Run(Setting(lambda m, n: Greedy(encoders(m, n), alpha=50.0)), 3), Run(None, 3)
    for each in (run, plain):
        for seed in range(4):
            each.train(data(3, seed=seed))
    assert same(run.parameters(), plain.parameters())


def test_speeds_are_counted_before_it_acts_and_a_phase_ends_with_its_epochs() -> None:
    setting = Setting(lambda m, n: Greedy(encoders(m, n), steps=100, from_epoch=1, until_epoch=2))
    run = Run(setting, 2)
    assert run.balancer is not None
    lagging = []
    for _ in range(3):
        for seed in range(2):
            run.train(data(2, seed=seed))
            lagging.append(bool(run.balancer.trace.get("lagging", torch.zeros(1)).any()))
        run.balancer.end_epoch()
    assert lagging == [False, False, True, True, False, False]


def test_a_phase_goes_on_where_it_was_saved() -> None:
    setting = Setting(lambda m, n: Greedy(encoders(m, n), steps=4))
    run, resumed = Run(setting, 3), Run(setting, 3)
    for seed in range(3):
        run.train(data(3, seed=seed))
    assert run.balancer is not None
    assert resumed.balancer is not None
    resumed.balancer.load_state_dict(run.balancer.state_dict())
    resumed.model.load_state_dict(run.model.state_dict())
    for seed in range(3, 9):
        for each in (run, resumed):
            each.train(data(3, seed=seed))
        assert run.balancer.trace["lagging"].tolist() == resumed.balancer.trace["lagging"].tolist()
    assert same(run.parameters(), resumed.parameters())


def test_one_that_is_frozen_in_its_phase_ends_it() -> None:
    setting = Setting(lambda m, n: Greedy(encoders(m, n), steps=100))
    run = Run(setting, 3)
    for _ in range(2):
        run.train(data(3))
    assert run.balancer is not None
    (lagging,) = (n for n, lags in zip(names_of(3), run.balancer.trace["lagging"].tolist(), strict=True) if lags)
    run.model.encoders[lagging].requires_grad_(False)
    before = run.parameters()
    run.train(data(3))
    assert not run.balancer.trace["lagging"].any()
    run.train(data(3))
    others = [name for name in names_of(3) if name != lagging]
    way = moved(run, before)
    assert all(way[f"encoders.{name}.0.weight"].any() for name in others)


def test_a_step_that_overflowed_does_not_spoil_the_speeds() -> None:
    run = Run(Setting(lambda m, n: Greedy(encoders(m, n), alpha=50.0)), 2)
    run.backward(data(2))
    assert run.balancer is not None
    before = run.balancer.trace["speeds"]
    run.backward(data(2), weight=inf)
    assert torch.equal(run.balancer.trace["speeds"], before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.0}, "`alpha` should be positive. Found `alpha = 0.0`"),
        ({"steps": 0}, "`steps` should be at least 1. Found `steps = 0`"),
        ({"fusion": some("audio", "text")}, r"names, \['text', 'audio'\]. Found \['audio', 'text'\]"),
    ],
)
def test_a_parameter_out_of_range_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Greedy(some(), **arguments)

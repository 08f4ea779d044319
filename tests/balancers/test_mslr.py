from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.balancers.loop import Run, Setting, moved, same
from tests.balancers.toy import Data, Toy, backward, data, encoders, names_of, step_of, toy
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.testing import assert_close

from equipoise import MSLR, Modalities, Step
from equipoise.functional import rate_changes, smooth_rates

RATES = {"text": 0.01, "audio": 1.0, "vision": 3.0}

Groups = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Groups] = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.05),
    "nesterov": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01, weight_decay=0.05),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.5),
    "amsgrad": lambda ps: torch.optim.AdamW(ps, lr=0.01, amsgrad=True),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.01, momentum=0.9),
}

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "constant": lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0),
    "warmup": lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 8),
}


def some(*names: str) -> Modalities:
    return Modalities(**{name: nn.Linear(1, 1) for name in names or ("text", "audio")})


def grouped(model: Toy, make: Groups) -> torch.optim.Optimizer:
    """What MSLR stands for: a parameter group of its own for each encoder, the rest in one more."""
    rest = [p for name, p in model.named_parameters() if not name.startswith("encoders.")]
    optimizer = make([*({"params": list(model.encoders[m].parameters())} for m in RATES), {"params": rest}])
    for group, rate in zip(optimizer.param_groups, [*RATES.values(), 1.0], strict=True):
        group["lr"] *= rate
    return optimizer


def train(model: Toy, optimizer: torch.optim.Optimizer, scheduler: Any, balancer: MSLR | None) -> None:
    for seed in range(8):
        optimizer.zero_grad()
        step = step_of(model, data(3, seed=seed))
        backward(step.loss if balancer is None else balancer(step))
        if balancer is not None:
            balancer.modulate()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_it_is_a_parameter_group_with_a_learning_rate_of_its_own(make: Groups, schedule: Callable[..., Any]) -> None:
    ours, theirs = toy(3), toy(3)
    start = {name: p.detach().clone() for name, p in ours.named_parameters()}
    optimizer = make(ours.parameters())
    balancer = MSLR(encoders(ours, names_of(3)), rates=RATES, strategy="keep")
    balancer.attach(optimizer)
    train(ours, optimizer, schedule(optimizer), balancer)
    groups = grouped(theirs, make)
    train(theirs, groups, schedule(groups), None)
    for (name, found), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=name)
        assert not torch.equal(found, start[name])


def test_in_single_precision_the_difference_to_a_group_is_rounding() -> None:
    ours, theirs = toy(3, torch.float32), toy(3, torch.float32)
    optimizer, groups = OPTIMIZERS["adamw"](ours.parameters()), grouped(theirs, OPTIMIZERS["adamw"])
    balancer = MSLR(encoders(ours, names_of(3)), rates=RATES, strategy="keep")
    balancer.attach(optimizer)
    for seed in range(8):
        for model, each in ((ours, optimizer), (theirs, groups)):
            each.zero_grad()
            backward(step_of(model, data(3, torch.float32, seed=seed)).loss)
            if model is ours:
                balancer.modulate()
            each.step()
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_one_step_by_hand() -> None:
    # SGD with lr 1/2 takes 10 to 10 - g/2: text by 1/4 of 3 to 9.25, audio by all of 2 to 8, vision by 3 · 1 to 7.
    weights = [nn.Parameter(torch.tensor([10.0])) for _ in range(3)]
    modalities = Modalities(**{name: [w] for name, w in zip(names_of(3), weights, strict=True)})
    optimizer = torch.optim.SGD(weights, lr=0.5)
    balancer = MSLR(modalities, rates={"vision": 3.0, "audio": 1.0, "text": 0.25}, strategy="keep")
    balancer.attach(optimizer)
    for weight, gradient in zip(weights, (6.0, 4.0, 2.0), strict=True):
        weight.grad = torch.tensor([gradient])
    balancer.modulate()
    optimizer.step()
    assert [w.item() for w in weights] == [9.25, 8.0, 7.0]
    assert balancer.trace["factors"].tolist() == [0.25, 1.0, 3.0]


def test_a_constant_factor_on_the_gradient_would_be_nothing_to_adam() -> None:
    """Why the step is scaled: a rate of 1/100 leaves a hundredth of the way."""
    rates = dict.fromkeys(names_of(2), 0.01)
    build = Setting(lambda m, n: MSLR(encoders(m, n), rates=rates, strategy="keep"))
    slow, plain = (Run(s, 2, optimizer=lambda ps: torch.optim.Adam(ps, lr=0.01)) for s in (build, None))
    start = plain.parameters()
    for run in (slow, plain):
        run.train(data(2))
    for name, way in moved(plain, start).items():
        share = 0.01 if name.startswith("encoders.") else 1.0
        assert_close(moved(slow, start)[name], way * share, rtol=1e-6, atol=1e-12)


def test_smooth_rates_by_hand() -> None:
    # The mean of 10⁻⁴, 10⁻² and 1 is 10⁻²; half way there are 10⁻³, 10⁻² and 10⁻¹.
    rates = torch.tensor([1e-4, 1e-2, 1.0], dtype=torch.float64)
    assert smooth_rates(rates).tolist() == pytest.approx([1e-3, 1e-2, 1e-1])
    assert smooth_rates(rates, 0.0).tolist() == pytest.approx([1e-4, 1e-2, 1.0])
    assert smooth_rates(rates, 1.0).tolist() == pytest.approx([1e-2] * 3)
    assert MSLR(some(), rates={"text": 0.04, "audio": 0.25}, strategy="smooth").rates == pytest.approx(
        {"text": (0.04 * 0.1) ** 0.5, "audio": (0.25 * 0.1) ** 0.5}
    )


CHANGES: dict[str, tuple[list[list[float]], list[float]]] = {
    "rising, level, falling": ([[0.25, 0.5, 0.75], [0.75, 0.5, 0.25]], [1.5, 1.0, 0.5]),
    # 0.5 to a mean of 0.5; 0.9 to 0.3, which is N.
    "the last of three": ([[0.25, 0.0], [0.75, 0.0], [0.5, 0.9]], [1.0, 3.0]),
    # A rate of zero would never come back: 1/N. Where there was never a score, nothing changes.
    "a score of zero": ([[0.5, 0.0], [0.0, 0.0]], [0.5, 1.0]),
}


@pytest.mark.parametrize(("history", "expected"), CHANGES.values(), ids=CHANGES)
def test_changes_by_hand(history: list[list[float]], expected: list[float]) -> None:
    assert rate_changes(torch.tensor(history, dtype=torch.float64)).tolist() == pytest.approx(expected)


def held(task: str, **right: float) -> Iterator[Step]:
    """Validation data, in batches of 1 and 3 rows, on which each modality has this accuracy, or this mean error."""
    for rows in (range(1), range(1, 4)):
        own: dict[str, Tensor] = {}
        for name, value in right.items():
            if task == "regression":
                own[name] = torch.tensor([[value], [-value], [value], [-value]])[rows]
            else:
                own[name] = torch.eye(2)[[0 if row < 4 * value else 1 for row in rows]]
        target = torch.zeros(len(rows)) if task == "regression" else torch.zeros(len(rows), dtype=torch.long)
        yield Step(torch.zeros(()), target=target, unimodal=own)


def test_dynamic_by_hand() -> None:
    balancer = MSLR(some(), rates={"text": 0.1, "audio": 2.0}, history=2)
    balancer.end_epoch(val=held("classification", text=0.5, audio=0.75))
    assert balancer.rates == pytest.approx({"text": 0.1, "audio": 2.0})
    # 0.75 / 0.625 = 1.2; 0.25 / 0.5 = 0.5.
    balancer.end_epoch(val=held("classification", text=0.75, audio=0.25))
    assert balancer.rates == pytest.approx({"text": 0.12, "audio": 1.0})
    balancer.end_epoch(val=held("classification", text=0.25, audio=0.25))
    assert balancer.rates == pytest.approx({"text": 0.12, "audio": 1.0})
    balancer.end_epoch(val=held("classification", text=0.75, audio=0.25))  # 0.75 / 0.5; 1
    assert balancer.rates == pytest.approx({"text": 0.18, "audio": 1.0})


def test_dynamic_for_regression_by_hand() -> None:
    # Errors 2, then 1: scores 1/2 and 1, 1 / 0.75 = 4/3. Errors 1, then 3: 1 and 1/3, (1/3) / (2/3) = 1/2.
    balancer = MSLR(some(), history=2)
    balancer.end_epoch(val=held("regression", text=2.0, audio=1.0))
    balancer.end_epoch(val=held("regression", text=1.0, audio=3.0))
    assert balancer.rates == pytest.approx({"text": 4 / 3, "audio": 0.5})
    for error in (1.0, 0.0):  # no error at all is no infinity
        balancer.end_epoch(val=held("regression", text=error, audio=error))
    assert balancer.rates == pytest.approx({"text": 8 / 3, "audio": 1.0})


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_dynamic_against_loops(count: int, task: str) -> None:
    def step(model: Toy, batch: Data) -> Step:
        full = step_of(model, batch)
        own = full.unimodal or {}
        if task == "classification":
            return Step(full.loss, target=batch.target, unimodal=own)
        return Step(full.loss, target=batch.target.double() - 1, unimodal={name: x[:, 0] for name, x in own.items()})

    model = toy(count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    balancer = MSLR(encoders(model, names_of(count)), history=3)
    balancer.attach(optimizer)
    rates = dict.fromkeys(names_of(count), 1.0)
    scores: dict[str, list[float]] = {name: [] for name in rates}
    val = data(count, rows=32, seed=9)
    for epoch in range(7):
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.zero_grad()
        backward(balancer(step(model, data(count, seed=epoch))))
        balancer.modulate()
        optimizer.step()
        for name, p in model.named_parameters():  # plain SGD: θ - λ_m η g
            group, modality, *_ = name.split(".")
            assert p.grad is not None
            rate = 0.5 * (rates[modality] if group == "encoders" else 1.0)
            assert_close(p.detach(), start[name] - rate * p.grad, rtol=1e-6, atol=1e-9)
        with torch.no_grad():
            balancer.end_epoch(val=[step(model, val)])
            for name, x in model.unimodal(model.encode(val.inputs)).items():
                rows = list(zip(x.tolist(), val.target.tolist(), strict=True))
                if task == "classification":
                    scores[name].append(sum(row.index(max(row)) == y for row, y in rows) / len(rows))
                else:
                    scores[name].append(len(rows) / sum(abs(row[0] - (y - 1)) for row, y in rows))
        if epoch % 3 == 2:
            for name, found in scores.items():
                rates[name] *= found[-1] / (sum(found[-3:]) / 3)
        assert balancer.rates == pytest.approx(rates, rel=1e-5)
    assert any(rate != 1 for rate in rates.values())


def test_outside_its_epochs_the_rates_wait() -> None:
    balancer = MSLR(some(), history=2, from_epoch=1, until_epoch=3)
    balancer.end_epoch()  # not yet: nothing is read
    balancer.end_epoch(val=held("classification", text=0.25, audio=0.5))
    balancer.end_epoch(val=held("classification", text=0.75, audio=0.5))
    balancer.end_epoch()
    assert balancer.rates == pytest.approx({"text": 1.5, "audio": 1.0})


def test_without_an_optimizer_it_says_what_to_call() -> None:
    run = Run(None, 2)
    balancer = MSLR(encoders(run.model, names_of(2)), rates={"text": 0.5, "audio": 1.0}, strategy="keep")
    backward(step_of(run.model, data(2)).loss)
    with pytest.raises(RuntimeError, match=r"Call `balancer.attach\(optimizer\)` once before training"):
        balancer.modulate()


@pytest.mark.parametrize("strategy", ["keep", "smooth"])
def test_rates_of_one_are_warned_about_and_change_nothing(strategy: Any) -> None:
    def build(model: Toy, names: tuple[str, ...]) -> MSLR:
        with pytest.warns(UserWarning, match=f'MSLR\\(strategy="{strategy}"\\) with all `rates` 1 does nothing'):
            return MSLR(encoders(model, names), strategy=strategy)

    run, plain = Run(Setting(build), 2), Run(None, 2)
    for each in (run, plain):
        each.train(data(2))
    assert same(run.parameters(), plain.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "fast"}, 'should be "keep", "smooth" or "dynamic". Found `strategy = \'fast\'`'),
        ({"history": 1}, "`history` should be at least 2. Found `history = 1`"),
        ({"rates": {"text": 1.0}}, r"one for each of \['text', 'audio'\]. Found \['text'\]"),
        ({"rates": {"text": 1.0, "audio": 0.0}}, "`rates` should be positive. Found {'text': 1.0, 'audio': 0.0}"),
    ],
)
def test_a_parameter_out_of_range_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MSLR(some(), **arguments)


def test_missing_validation_steps_and_outputs_are_named() -> None:
    balancer = MSLR(some())
    with pytest.raises(ValueError, match=r"Found none. Call `balancer.end_epoch\(val=steps\)`"):
        balancer.end_epoch()
    with pytest.raises(ValueError, match=r"missing \['audio'\]"):
        balancer(next(held("classification", text=1.0)))

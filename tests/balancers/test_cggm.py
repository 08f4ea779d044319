"""CGGM by hand, derived again with loops, where released code fails, and misused."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import pytest
import torch
from tests.balancers.loop import Run, Setting
from tests.balancers.toy import Data, Toy, backward, data, encoders, names_of, toy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from equipoise import CGGM, Modalities, Step
from equipoise.functional import cggm_shares, output_residuals, row_cosines

TASKS = ["classification", "regression"]


def step_of(model: Toy, batch: Data, task: str) -> Step:
    features = model.encode(batch.inputs)
    logits, own, target = model.fuse(features), model.unimodal(features), batch.target
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    if task == "regression":
        target, criterion = batch.target.to(logits) - 1, F.mse_loss
        logits, own = logits[:, 0], {name: x[:, 0] for name, x in own.items()}
    loss = criterion(logits, target)
    for output in own.values():
        loss = loss + 0.5 * criterion(output, target)
    return Step(loss, logits, target, own, features)


@pytest.mark.parametrize(
    ("improvements", "shares"),
    [
        ([3.0, 1.0], [1 / 4, 3 / 4]),
        ([3.0, 2.0, 1.0], [3 / 6, 4 / 6, 5 / 6]),
        ([0.5, 0.5, 0.5, 0.5], [3 / 4] * 4),
        ([0.2, -0.1, 0.0], [0, 1, 1]),  # who alone improves has no share of what the others did
        ([0.0, 0.0, 0.0], [2 / 3] * 3),
        ([-0.3, -0.1], [1 / 2] * 2),
    ],
)
def test_shares_by_hand(improvements: list[float], shares: list[float]) -> None:
    assert cggm_shares(torch.tensor(improvements)).tolist() == pytest.approx(shares)


def test_residuals_by_hand() -> None:
    # Weights 1 and 3: probabilities 1/4 and 3/4.
    found = output_residuals(torch.tensor([[0.0, log(3)]]), torch.tensor([0]))
    assert found[0].tolist() == pytest.approx([-3 / 4, 3 / 4])
    assert output_residuals(torch.tensor([2.0, -1.0]), torch.tensor([[0.5], [1.0]])).tolist() == [1.5, -2]


def test_cosines_of_rows_by_hand_and_however_small() -> None:
    x = torch.tensor([[3.0, 4.0], [1e-30, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[4.0, 3.0], [-1e-30, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = row_cosines(x, y)
    assert found.tolist() == pytest.approx([24 / 25, -1, 0, 0])
    (gradient,) = torch.autograd.grad(found.sum(), x)
    # Of ŷ the part across x̂: (4, 3)/5 - 24/25 (3, 4)/5, over the length 5.
    assert gradient[0].tolist() == pytest.approx([(4 / 5 - 24 / 25 * 3 / 5) / 5, (3 / 5 - 24 / 25 * 4 / 5) / 5])
    assert gradient[2:].tolist() == [[0, 0], [0, 0]]


def observe(balancer: CGGM, target: Tensor, **own: Tensor) -> dict[str, list[float]]:
    """One step of gradients of 1, and what became of them."""
    names = balancer.modalities
    for name in names:
        for parameter in names.parameters(name):
            parameter.grad = torch.ones_like(parameter)
    balancer(Step(torch.zeros(()), target=target, unimodal=own))
    balancer.modulate()
    return {name: [float(g) for g in names.gradients(name)] for name in names}


def scalars(*names: str) -> Modalities:
    return Modalities(**{name: [nn.Parameter(torch.zeros(1))] for name in names})


def one_hot(*classes: int) -> Tensor:
    return F.one_hot(torch.tensor(classes), 2).float()


def test_accuracies_by_hand() -> None:
    target = torch.tensor([0, 0, 1, 1])
    balancer = CGGM(scalars("text", "audio", "vision"), rho=2.0, lambda_gm=0.0)
    # Right at first: 1, 2 and 2 of 4. Nothing to compare with: 2 · 2/3 for everyone.
    first = {"text": one_hot(1, 1, 1, 0), "audio": one_hot(0, 0, 0, 0), "vision": one_hot(1, 1, 1, 1)}
    assert observe(balancer, target, **first) == dict.fromkeys(first, pytest.approx([4 / 3]))
    # Then 4, 3 and 1: improved by 3, 1 and -1 quarters, of which the last counts as 0. Others' shares 1/4, 3/4 and 1.
    then = {"text": one_hot(0, 0, 1, 1), "audio": one_hot(0, 0, 0, 1), "vision": one_hot(1, 1, 1, 0)}
    assert observe(balancer, target, **then) == {
        "text": pytest.approx([0.5]),
        "audio": pytest.approx([1.5]),
        "vision": pytest.approx([2]),
    }
    assert balancer.trace["improvements"].tolist() == pytest.approx([0.75, 0.25, -0.25])
    # From there, and not from the best so far: vision improves by 1 quarter, the others by none.
    again = {"text": then["text"], "audio": then["audio"], "vision": first["vision"]}
    found = observe(balancer, target, **again)
    assert found == {"text": pytest.approx([2]), "audio": pytest.approx([2]), "vision": [0]}


@pytest.mark.parametrize(("score", "factors"), [("absolute_error", [0.25, 0.75]), ("sign", [1.0, 0.0])])
def test_regression_by_hand(score: str, factors: list[float]) -> None:
    # Mean errors of text 4, then 1; of audio 4, then 3. Signs right of text 2 of 2 and 2; of audio 0, then 1.
    target = torch.tensor([1.0, 2.0])
    balancer = CGGM(scalars("text", "audio"), rho=1.0, lambda_gm=0.0, regression=score)  # type: ignore[arg-type]
    observe(balancer, target, text=target + 4, audio=target - 4)
    found = observe(balancer, target, text=target + 1, audio=target - torch.tensor([4.25, 1.75]))
    assert [values[0] for values in found.values()] == pytest.approx(factors)


def test_direction_by_hand() -> None:
    # Fused: z = 3 a + 4 b of text (a, b), plus audio; loss (z - y)²/2: slopes (z - y)(3, 4) and (z - y).
    # Text alone says 1 a + 0 b, audio alone says its feature. z = 3 + 1 = 4, y = 2: residuals 2; 1 - 2; 1 - 2.
    # Cosines of (6, 8) with (-1, 0): -3/5; of 2 with -1: -1. Even shares 1/2: (1/2 (1 + 3/5) + 1/2 (1 + 1)) / 2 = 0.9.
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    text, audio = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[1.0]], requires_grad=True)
    balancer = CGGM(scalars("text", "audio"), lambda_gm=10.0)
    z = text @ weight + audio[:, 0]
    step = Step(
        (z - 2).square().sum() / 2,
        z,
        torch.tensor([2.0]),
        {"text": text[:, 0], "audio": audio[:, 0]},
        {"text": text, "audio": audio},
    )
    loss = balancer(step)
    assert loss.item() == pytest.approx(2 + 9)
    # Besides the plain slope (2, 0): -10 · 1/2 · 1/2 of the cosine's, (-1, 0) across (3, 4)/5 over 5: (-16, 12)/125.
    backward(loss)
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([2 + 2.5 * 16 / 125, -2.5 * 12 / 125])


def cosine(x: list[Tensor], y: list[float]) -> Tensor:
    product = torch.stack([a * b for a, b in zip(x, y, strict=True)]).sum()
    return product / (torch.stack([a * a for a in x]).sum() * sum(b * b for b in y)) ** 0.5


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("source", ["unimodal", "heads"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_again_from_the_equations(count: int, source: str, task: str) -> None:
    names, model, rho, weight = names_of(count), toy(count), 1.3, 0.4
    setting = {"rho": rho, "lambda_gm": weight, "source": source, "head_lr": 0.05}
    balancer = CGGM(encoders(model, names), **setting)  # type: ignore[arg-type]
    outputs = 3 if task == "classification" else 1
    heads = {name: nn.Linear(4, outputs) for name in names}
    for head in heads.values():
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    learner = torch.optim.Adam([p for head in heads.values() for p in head.parameters()], lr=0.05, eps=1e-5)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    before: dict[str, float] = {}
    shares = dict.fromkeys(names, (count - 1) / count)
    seen: set[float] = set()
    for t in range(4):
        step = step_of(model, data(count, rows=5, seed=t), task)
        assert step.features is not None
        assert step.unimodal is not None
        assert step.target is not None
        rows = range(len(step.target))
        own = dict(step.unimodal)
        if source == "heads":
            own = {name: heads[name](step.features[name].detach().float()) for name in names}
            own = own if task == "classification" else {name: x[:, 0] for name, x in own.items()}

        # The direction, sample by sample, with the shares of the step before.
        slopes = torch.autograd.grad(step.loss, [step.features[name] for name in names], create_graph=True)
        direction = step.loss * 0
        for name, slope in zip(names, slopes, strict=True):
            module = model.heads[name] if source == "unimodal" else heads[name]
            assert isinstance(module, nn.Linear)
            matrix = module.weight.tolist()  # for values, its first row
            total = step.loss * 0
            for i in rows:
                if task == "classification":
                    odds = own[name][i].detach().exp()
                    residual = [float(p) for p in odds / odds.sum()]
                    residual[int(step.target[i])] -= 1
                else:
                    residual = [float(own[name][i].detach() - step.target[i])]
                alone = [sum(r * row[j] for r, row in zip(residual, matrix, strict=False)) for j in range(4)]
                if any(alone):
                    total = total + cosine(list(slope[i]), alone) / len(rows)
            direction = direction + (shares[name] - shares[name] * total) / count
        wanted = torch.autograd.grad(step.loss + weight * direction, parameters, retain_graph=True, allow_unused=True)

        # The magnitudes.
        score = {}
        for name in names:
            if task == "classification":
                score[name] = sum(int(own[name][i].argmax()) == int(step.target[i]) for i in rows) / len(rows)
            else:
                score[name] = -sum(abs(float(own[name][i].detach() - step.target[i])) for i in rows) / len(rows)
        gain = {name: max(score[name] - before.get(name, score[name]), 0) for name in names}
        before = score
        for name in names:
            others = sum(gain[other] for other in names if other != name)
            shares[name] = others / sum(gain.values()) if sum(gain.values()) > 1e-12 else (count - 1) / count
        seen |= {round(share, 3) for share in shares.values()}

        optimizer.zero_grad()
        backward(balancer(step))
        balancer.modulate()
        found = dict(model.named_parameters())
        for (key, parameter), gradient in zip(found.items(), wanted, strict=True):
            part, name = key.split(".")[:2]
            factor = rho * shares[name] if part == "encoders" else 1.0
            assert parameter.grad is not None
            assert gradient is not None
            assert_close(parameter.grad, gradient * factor, rtol=1e-4, atol=1e-6)
        learner.zero_grad()
        if source == "heads":
            for name in names:
                fit = F.cross_entropy if task == "classification" else lambda x, y: F.mse_loss(x, y) / 2
                target = step.target if task == "classification" else step.target.float()
                backward(fit(own[name], target))
            learner.step()
        optimizer.step()
    assert len(seen) > 2


def released_coefficients(improvements: list[float]) -> list[float]:
    """The rule as the authors' code has it."""
    total = sum(improvements) + 1e-8
    return [(total - improvement) / total for improvement in improvements]


@pytest.mark.parametrize(
    ("improvements", "broken"),
    [
        ([0.25, -0.125, 0.0], (-1, 2)),  # the one that improves climbs, the one that got worse runs ahead
        ([0.125, -0.125, 0.0625], (-1, 3)),
        ([0.015625, -0.015625, 0.0], (-1e6, 1e6)),  # a sample more here, one fewer there
    ],
)
def test_factors_are_bounded_where_released_ones_are_not(
    improvements: list[float], broken: tuple[float, float]
) -> None:
    """They were negative, which is gradient ascent, in 13 of 45 steps measured, and up to 7.8e6."""
    released = released_coefficients(improvements)
    assert min(released) <= broken[0] + 1e-6
    assert max(released) >= broken[1] * 0.5
    ours = cggm_shares(torch.tensor(improvements))
    assert ((ours >= 0) & (ours <= 1)).all()


def test_factors_lie_between_zero_and_rho_and_their_mean_is_always_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for trial in range(300):
        count = 2 + trial % 3
        improvements = (torch.randint(-4, 5, (count,), generator=generator) / 64).tolist()
        shares = cggm_shares(torch.tensor(improvements))
        assert ((shares >= 0) & (shares <= 1)).all()
        assert shares.mean().item() == pytest.approx((count - 1) / count)
        worst = min(worst, *released_coefficients(improvements))
    assert worst < -1e5


def test_no_encoder_ever_climbs_the_loss() -> None:
    setting = Setting(lambda m, n: CGGM(encoders(m, n), lambda_gm=0.0))
    run, plain = Run(setting, 3), Run(None, 3)
    for seed in range(10):
        plain.model.load_state_dict(run.model.state_dict())
        run.backward(data(3, seed=seed))
        plain.backward(data(3, seed=seed))
        for found, expected in zip(run.model.parameters(), plain.model.parameters(), strict=True):
            assert found.grad is not None
            assert expected.grad is not None
            assert (found.grad * expected.grad).sum() >= 0
        run.optimizer.step()


def test_it_is_gradients_that_are_compared_and_not_weights() -> None:
    """Released code takes the cosine of the last layers' weights, whatever the errors are."""
    head = torch.tensor([1.0, 2.0])
    found = []
    for target in (-10.0, 10.0):  # both alone and fused above it, then below it; then on either side
        for fused in (-20.0, 20.0):
            x = torch.tensor([[0.0, 0.0]], requires_grad=True)
            z = x @ head + fused
            step = Step((z - target).square().sum(), z, torch.tensor([target]), {"text": x @ head}, {"text": x})
            y = torch.ones(1, 1, requires_grad=True)
            assert step.unimodal is not None
            assert step.features is not None
            loss = step.loss + y.sum() * 0
            both = Step(loss, z, step.target, {**step.unimodal, "audio": y[:, 0]}, {**step.features, "audio": y})
            balancer = CGGM(scalars("text", "audio"))
            observed = balancer(both)
            assert torch.isfinite(observed)
            for name in ("text", "audio"):
                balancer.modalities.parameters(name)[0].grad = torch.ones(1)
            balancer.modulate()
            found.append(balancer.trace["cosines"][0].item())
    assert found == pytest.approx([-1, 1, 1, -1])
    assert float(F.cosine_similarity(head, head, dim=0)) == pytest.approx(1)


def test_the_direction_turns_the_fusion_towards_what_a_modality_would_do_alone() -> None:
    """Released code's term reaches the last layer only, and from the step before."""
    cosines = {}
    for weight in (0.0, 3.0):
        model = toy(3)
        balancer = CGGM(encoders(model, names_of(3)), lambda_gm=weight or 1e-12)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(30):
            optimizer.zero_grad()
            backward(balancer(step_of(model, data(3, rows=32), "classification")))
            balancer.modulate()
            optimizer.step()
        cosines[weight] = balancer.trace["cosines"].mean().item()
    assert cosines[3.0] > cosines[0.0] + 0.05


def test_own_heads_leave_the_model_alone_and_need_no_outputs() -> None:
    model, plain = toy(3), toy(3)
    balancer = CGGM(encoders(model, names_of(3)), rho=1.5, lambda_gm=0.0)
    step = step_of(model, data(3), "classification")
    backward(balancer(Step(step.loss, step.logits, step.target, features=step.features)))
    balancer.modulate()
    backward(step_of(plain, data(3), "classification").loss)
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        assert_close(found.grad, expected.grad)  # even shares in the first step: 3/2 · 2/3
    assert all(head.weight.any() for head in balancer.heads.heads)  # type: ignore[operator]


def test_scores_of_infinite_outputs_do_not_outlive_their_step() -> None:
    balancer = CGGM(scalars("text", "audio"), rho=1.0, lambda_gm=0.0)
    target = torch.zeros(2)
    observe(balancer, target, text=target + 4, audio=target + 4)
    found = observe(balancer, target, text=target * torch.nan, audio=target + 4)
    assert found == {"text": [0.5], "audio": [0.5]}
    found = observe(balancer, target, text=target + 1, audio=target + 3)
    assert found == {"text": pytest.approx([0.25]), "audio": pytest.approx([0.75])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 0.0}, r"Parameter `rho` should be positive. Found `rho = 0.0`."),
        ({"lambda_gm": -1.0}, r"Parameter `lambda_gm` should be non-negative. Found `lambda_gm = -1.0`."),
        ({"source": "own"}, r"Parameter `source` should be .* Found `source = 'own'`."),
        ({"regression": "l2"}, r"Parameter `regression` should be .* Found `regression = 'l2'`."),
        ({"head_lr": 0.0}, r"Parameter `head_lr` should be positive. Found `head_lr = 0.0`."),
    ],
)
def test_parameters_out_of_range(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CGGM(scalars("text", "audio"), **arguments)  # type: ignore[arg-type]


def test_misuse_is_named() -> None:
    model = toy(2)
    step = step_of(model, data(2), "classification")
    assert step.features is not None
    assert step.unimodal is not None
    balancer = CGGM(encoders(model, names_of(2)), lambda_gm=0.0)
    with pytest.raises(ValueError, match=r"CGGM needs `unimodal` or `features` in the `Step`. Found neither"):
        balancer(Step(step.loss, step.logits, step.target))
    balancer = CGGM(encoders(model, names_of(2)))
    detached = {name: x.detach() for name, x in step.features.items()}
    with pytest.raises(ValueError, match=r"the very tensors that `Step.loss` was computed from"):
        balancer(Step(step.loss, step.logits, step.target, step.unimodal, detached))
    apart = {name: model.heads[name](x) for name, x in detached.items()}
    with pytest.raises(ValueError, match=r'`text` not computed from its `Step.features`.*Set `source="heads"`'):
        balancer(Step(step.loss, step.logits, step.target, apart, step.features))
    one = {"text": step.unimodal["text"]}
    with pytest.raises(ValueError, match=r"needs an output of each modality .* missing \['audio'\]"):
        balancer(Step(step.loss, step.logits, step.target, one, step.features))


def test_what_is_frozen_has_no_direction() -> None:
    model = toy(2)
    model.encoders["audio"].requires_grad_(False)
    balancer = CGGM(Modalities(text=model.encoders["text"], audio=model.heads["audio"]))
    step = step_of(model, data(2), "classification")
    backward(balancer(step))
    balancer.modulate()
    assert balancer.trace["cosines"][1] == 0
    assert abs(balancer.trace["cosines"][0]) > 1e-3

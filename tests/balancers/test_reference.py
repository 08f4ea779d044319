"""The methods again, written from the papers' equations with loops and in ignorance of the package's own maths."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import exp, factorial, log, sqrt, tanh

import pytest
import torch
from tests.balancers.loop import Run, Setting, same
from tests.balancers.toy import CLASSES, Data, Toy, backward, data, encoders, names_of, step_of, toy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from equipoise import AGM, AGS, MSES, OGMGE, Modalities, Step
from equipoise.functional import gradient_norms, shapley_responses


def gradients(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


@pytest.mark.parametrize("strategy", ["average", "max"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_ags(count: int, strategy: str) -> None:
    alpha = 0.7
    setting = Setting(lambda m, n: AGS(encoders(m, n), alpha=alpha, strategy=strategy))  # type: ignore[arg-type]
    run, plain, batch = Run(setting, count), Run(None, count), data(count)
    run.backward(batch)
    plain.backward(batch)

    size: dict[str, float] = {}
    for name, encoder in plain.model.encoders.items():  # Eq. 20
        squares = [sum(float(x) ** 2 for x in p.grad.flatten()) for p in encoder.parameters() if p.grad is not None]
        size[name] = sqrt(sum(squares) / len(squares))
    scaled = 0
    for name, encoder in plain.model.encoders.items():
        mean = sum(size[other] for other in size if other != name) / (count - 1)
        if size[name] > mean if strategy == "average" else size[name] == max(size.values()):  # Eqs. 21, 22
            ratio = size[name] / mean
            factor = 1 - tanh(alpha * ratio / (1 + ratio))  # Eq. 25
            scaled += 1
        else:
            factor = 1.0
        for found, expected in zip(run.model.encoders[name].parameters(), encoder.parameters(), strict=True):
            assert found.grad is not None
            assert expected.grad is not None
            assert_close(found.grad, expected.grad * factor)  # Eq. 26
    assert scaled >= 1


def test_ogm_ge() -> None:
    """Eqs. 8 to 12, which have two modalities: audio and vision in the paper."""
    alpha = 0.3
    setting = Setting(lambda m, n: OGMGE(encoders(m, n), alpha=alpha, noise=False))
    run, plain, batch = Run(setting, 2), Run(None, 2), data(2)
    run.backward(batch)
    plain.backward(batch)
    unimodal = plain.model.unimodal(plain.model.encode(batch.inputs))
    total = {}
    for name, logits in unimodal.items():
        total[name] = 0.0
        for row, label in zip(logits.tolist(), batch.target.tolist(), strict=True):
            total[name] += exp(row[label]) / sum(exp(x) for x in row)
    first, second = total
    ratio = {first: total[first] / total[second], second: total[second] / total[first]}
    assert max(ratio.values()) > 1
    for name, encoder in plain.model.encoders.items():
        factor = 1 - tanh(alpha * ratio[name]) if ratio[name] > 1 else 1.0
        for found, expected in zip(run.model.encoders[name].parameters(), encoder.parameters(), strict=True):
            assert found.grad is not None
            assert expected.grad is not None
            assert_close(found.grad, expected.grad * factor, rtol=1e-5, atol=1e-8)


def test_the_noise_of_ogm_ge_has_the_spread_of_the_gradient_and_no_mean() -> None:
    """In every tensor, a matrix and a vector alike: the released code leaves all but convolutions alone."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"text": nn.Linear(300, 200), "audio": nn.Linear(20000, 1)})
    own = {"text": torch.tensor([[0.0, 2.0]]), "audio": torch.tensor([[0.0, 0.0]])}
    plain = {}
    for name, parameter in model.named_parameters():
        parameter.grad = torch.randn_like(parameter) * len(name) + 5
        plain[name] = parameter.grad.clone()
    balancer = OGMGE(Modalities(**model), alpha=0.2)
    balancer(Step(torch.zeros(()), target=torch.tensor([1]), unimodal=own))
    balancer.modulate()
    noises = []
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        factor = balancer.trace["factors"][0 if name.startswith("text") else 1]
        noise = parameter.grad - plain[name] * factor
        if plain[name].numel() == 1:
            continue
        spread = plain[name].std()
        assert float(noise.std() / spread) == pytest.approx(1, abs=4 / sqrt(2 * noise.numel()))
        assert abs(float(noise.mean() / spread)) < 4 / sqrt(noise.numel())
        noises.append((noise / spread).flatten())
    assert balancer.trace["factors"][0] < 1
    matrices = [noise[:20000] for noise in noises if noise.numel() >= 20000]
    assert abs(float((matrices[0] * matrices[1]).mean())) < 4 / sqrt(20000)  # independent of one another


def muted(model: Toy, batch: Data, kept: frozenset[str]) -> Tensor:
    inputs = {name: x if name in kept else torch.zeros_like(x) for name, x in batch.inputs.items()}
    return model.fuse(model.encode(inputs))


def responses(model: Toy, batch: Data) -> dict[str, Tensor]:
    """Shapley values over all orders, the empty set being worth nothing (Eqs. 1 to 3)."""
    names = tuple(batch.inputs)
    found = {name: torch.zeros(len(batch.target), CLASSES, dtype=torch.float64) for name in names}
    for order in permutations(names):
        before: frozenset[str] = frozenset()
        value: Tensor | float = 0.0
        for name in order:
            before = before | {name}
            after = muted(model, batch, before)
            found[name] = found[name] + (after - value) / factorial(len(names))
            value = after
    return found


@pytest.mark.parametrize("subsets", [False, True], ids=["closure", "SubsetPredict"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_responses_of_a_model(count: int, subsets: bool) -> None:
    model, batch = toy(count), data(count)
    step = step_of(model, batch, subsets=subsets)
    assert step.predict is not None
    found, expected = shapley_responses(step.predict, names_of(count)), responses(model, batch)
    for name in names_of(count):
        assert_close(found[name], expected[name])
    assert step.logits is not None
    assert_close(sum(found.values()), step.logits)


@pytest.mark.parametrize("subsets", [False, True], ids=["closure", "SubsetPredict"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_agm(count: int, subsets: bool) -> None:
    """Algorithm 1, each response's gradient from a backward pass of its own, with the slope of the loss held fixed."""
    alpha, names = 6.0, names_of(count)
    model = toy(count)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    balancer = AGM(encoders(model, names), alpha=alpha)
    running = dict.fromkeys(names, 0.0)
    seen: list[float] = []
    for t in range(3):
        batch = data(count, seed=t)
        step = step_of(model, batch, subsets=subsets)
        assert step.logits is not None
        optimizer.zero_grad()
        loss = balancer(step)
        assert torch.equal(loss, step.loss)

        mono = responses(model, batch)
        strength = {}  # + log p, as Algorithm 1 has it
        for name, response in mono.items():
            rows = response.softmax(dim=1).tolist()
            strength[name] = sum(log(r[y]) for r, y in zip(rows, batch.target.tolist(), strict=True)) / len(rows)
        factors = {}
        for name in names:
            now = exp((strength[name] - sum(strength.values()) / count) * count / (count - 1))
            average = exp((running[name] - sum(running.values()) / count) * count / (count - 1))
            factors[name] = exp(-alpha * (now - average))
        running = {name: (running[name] * t + strength[name]) / (t + 1) for name in names}
        slope = torch.autograd.grad(F.cross_entropy(step.logits, batch.target), step.logits, retain_graph=True)[0]
        rest = gradients(step.loss - F.cross_entropy(step.logits, batch.target), parameters)
        expected = rest
        for name in names:
            own = gradients((slope.detach() * mono[name]).sum(), parameters)
            expected = [total + factors[name] * g for total, g in zip(expected, own, strict=True)]  # Eq. 6

        backward(loss)
        balancer.modulate()
        for parameter, value in zip(parameters, expected, strict=True):
            assert parameter.grad is not None
            assert_close(parameter.grad, value, rtol=1e-5, atol=1e-7)
        assert balancer.trace["factors"].tolist() == pytest.approx(list(factors.values()), rel=1e-4)
        seen += factors.values()
        optimizer.step()
    assert min(seen) < 0.9
    assert max(seen) > 1.1


def test_agm_holds_back_the_modality_that_predicts_better() -> None:
    """Eqs. 4, 7 and 8 as printed, and re-implementations after them, push it on instead."""
    run, plain, batch = Run(Setting(lambda m, n: AGM(encoders(m, n)), loss=True), 2), Run(None, 2), data(2)
    batch = Data({"text": 3 * F.one_hot(batch.target, CLASSES).double(), "audio": batch.inputs["audio"]}, batch.target)
    through = {  # text is handed through to the logits, audio is noise
        "encoders.text.0.weight": torch.eye(4, 3),
        "encoders.text.0.bias": torch.zeros(4),
        "projections.text.weight": torch.eye(5, 4),
        "out.weight": 3 * torch.eye(3, 5),
    }
    for model in (run.model, plain.model):
        model.load_state_dict(model.state_dict() | through)
    for each in (run, plain):
        each.optimizer.zero_grad()
        step = step_of(each.model, batch)
        assert step.logits is not None
        step = replace(step, loss=F.cross_entropy(step.logits, batch.target))
        backward(step.loss if each.balancer is None else each.balancer(step))
    assert run.balancer is not None
    strong, weak = run.balancer.trace["factors"].tolist()
    assert strong < 0.9 < 1.1 < weak
    before, after = (gradient_norms(encoders(each.model, names_of(2))) for each in (plain, run))
    assert after[0] < before[0]
    assert after[1] > before[1]


def test_agm_leaves_dropout_out_of_the_muted_predictions_of_a_model_that_can_be_cut() -> None:
    class Dropped(Toy):
        def fuse(self, features):  # type: ignore[no-untyped-def]
            return F.dropout(super().fuse(features), 0.5, self.out.training)

    model = Dropped(names_of(3), torch.float64)
    step = step_of(model, data(3), subsets=True)
    assert step.predict is not None
    first, second = (step.predict(frozenset({"text"})) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert model.out.training


def test_mses() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        patience, min_delta = 1 + trial % 3, 0.1 * (trial % 2)
        names = names_of(2 + trial % 3)
        balancer = MSES(Modalities(**{name: nn.Linear(1, 1) for name in names}), patience=patience, min_delta=min_delta)
        history: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(12):
            losses = torch.rand(len(names), generator=generator).tolist()
            own = {name: torch.tensor([loss]) for name, loss in zip(names, losses, strict=True)}
            step = Step(torch.zeros(()), target=torch.zeros(1), unimodal=own, criterion=F.l1_loss)
            balancer.end_epoch(val=[step])
            for name, loss in zip(names, losses, strict=True):
                history[name].append(loss)
            assert balancer.stopped == tuple(n for n in names if has_stopped(history[n], patience, min_delta))


def has_stopped(losses: list[float], patience: int, min_delta: float) -> bool:
    """Whether some stretch of ``patience`` epochs brought no loss below the best before it."""
    best, since = losses[0], 0
    for loss in losses[1:]:
        if loss < best - min_delta:
            best, since = loss, 0
        else:
            since += 1
            if since == patience:
                return True
    return False


def test_a_transformer_is_balanced_as_well_as_a_convolution() -> None:
    """OGM-GE as released scales gradients of four dimensions only, and is silent about the rest."""
    torch.manual_seed(0)
    shapes = [
        nn.Linear(2, 3),
        nn.GRU(2, 2),
        nn.LayerNorm(4),
        nn.Conv1d(2, 2, 3),
        nn.Conv2d(1, 2, 3),
        nn.Embedding(3, 2),
    ]
    for kind in shapes:
        strong, weak = kind, nn.Linear(1, 1)
        own = {"strong": torch.tensor([[9.0, 0.0]]), "weak": torch.tensor([[0.0, 0.0]])}
        for method in ("ags", "ogm"):
            for parameter in [*strong.parameters(), *weak.parameters()]:
                parameter.grad = torch.full_like(parameter, 100.0 if parameter.dim() else 1.0)
            for parameter in weak.parameters():
                parameter.grad = torch.ones_like(parameter)
            modalities = Modalities(strong=strong, weak=weak)
            balancer = AGS(modalities, alpha=1.0) if method == "ags" else OGMGE(modalities, noise=False)
            balancer(Step(torch.zeros(()), target=torch.tensor([0]), unimodal=own))
            balancer.modulate()
            for parameter in strong.parameters():
                assert parameter.grad is not None
                assert (parameter.grad < 99.0).all()


def test_accumulated_gradients_are_kept() -> None:
    """AGS-SMoE's released step drops the gradients of all micro-batches but the last."""
    setting = Setting(lambda m, n: AGS(encoders(m, n), alpha=0.0))
    run, plain, batch = Run(setting, 3), Run(None, 3), data(3)
    run.backward(batch.rows(0, 2), batch.rows(2, 4), batch.rows(4, 8))
    plain.backward(batch.rows(0, 2), batch.rows(2, 4), batch.rows(4, 8))
    assert same(run.gradients(), plain.gradients())

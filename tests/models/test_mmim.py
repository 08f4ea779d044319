from __future__ import annotations

import copy
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from scipy.stats import multivariate_normal
from tests.models import memory_ranks
from tests.models.builders import DIMS, Lookup, emptied, make_batch, rows, with_tokens
from tests.models.learning import DATA_DIMS, few_utterances
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import functional as F

from equipoise.balancers import AGS
from equipoise.core import Batch
from equipoise.models import MMIM
from equipoise.models._mmim import Entropy, Gaussian, contrast
from equipoise.training.loop import fit
from equipoise.training.steps import make_step


def _mmim(**given: Any) -> Any:
    torch.manual_seed(0)
    return MMIM(**{"dims": DIMS, "hidden": 8, "text_hidden": 4, "fusion_hidden": 6, "dropout": 0.0, **given}).double()


def _batch(size: int = 12, *, seed: int = 5) -> Batch:
    """Six positive and six negative samples."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, 5, (3, size), generator=generator).tolist()
    batch = make_batch({name: tuple(own) for name, own in zip(DIMS, steps, strict=True)})
    noise = {name: x + torch.randn(x.shape, generator=generator).double() for name, x in batch.inputs.items()}
    target = torch.tensor([1.0, -2.0]).repeat(size // 2).double()
    return Batch(noise, batch.masks, target, batch.index)


def _with_gradient(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: g for name, g in zip(names, gradients, strict=True) if g is not None and bool(g.any())}


def _density(estimator: Any, x: Tensor, y: Tensor) -> Tensor:
    deviation = (0.5 * torch.tanh(estimator.log_variance(x))).exp()
    density: Tensor = Independent(Normal(estimator.mean(x), deviation), 1).log_prob(y)  # type: ignore[no-untyped-call]
    return density


def test_estimators_learn_from_likelihood_on_constant_features_alone() -> None:
    model, batch = _mmim(), _batch()
    output = model(batch)
    found = _with_gradient(model, model.losses(output, batch)["likelihood"])
    assert set(found) == {name for name, _ in model.named_parameters() if name.startswith("estimators")}
    z = {name: x.detach() for name, x in output.features.items()}
    both = torch.stack([_density(model.estimators[f"text-{m}"], z["text"], z[m]) for m in ("audio", "vision")])
    for name, gradient in _with_gradient(model, -both.mean(dim=1).sum()).items():
        torch.testing.assert_close(found[name], gradient)


def test_encoders_learn_from_the_bound_through_constant_estimators_alone() -> None:
    model, batch = _mmim(beta=0.7), _batch()
    output = model(batch)
    twin = copy.deepcopy(model)
    found = _with_gradient(model, model.losses(output, batch)["bound"])
    assert set(found) == {name for name, _ in model.named_parameters() if name.startswith("encoders")}
    # The same bound with nothing held constant: another gradient for estimators, the same for encoders.
    z = twin(batch).features
    both = torch.stack([_density(twin.estimators[f"text-{m}"], z["text"], z[m]) for m in ("audio", "vision")])
    bound = both.mean(dim=1).sum()
    for name in ("audio", "vision"):
        projected = (z[name] @ twin.entropies[f"text-{name}"].projection.T).tanh()
        for sign in (1, -1):
            own = projected[batch.target * sign > 0].T.cov(correction=0) + 1e-5 * torch.eye(2)
            bound = bound + 0.5 * 0.5 * torch.logdet(2 * math.pi * math.e * own)
    free = _with_gradient(twin, -0.7 * bound)
    assert any(name.startswith("estimators") for name in free)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, free[name])


def test_contrast_reaches_all_but_estimators_and_heads() -> None:
    model, batch = _mmim(), _batch()
    found = _with_gradient(model, model.losses(model(batch), batch)["cpc"])
    assert {name.split(".")[0] for name in found} == {"encoders", "fusion", "predictors"}


def test_the_density_is_that_of_a_normal_distribution() -> None:
    torch.manual_seed(0)
    estimator, x, y = Gaussian(3, 2).double(), torch.randn(5, 3).double(), torch.randn(5, 2).double()
    torch.testing.assert_close(estimator(x, y), _density(estimator, x, y))
    torch.testing.assert_close(estimator.held(x, y), estimator(x, y), rtol=0, atol=0)


def test_the_entropy_is_that_of_normal_distributions() -> None:
    torch.manual_seed(0)
    entropy = Entropy(8, components=3, size=2).double()
    y = torch.randn(20, 8).double()
    component = torch.arange(20) % 2  # none of the third
    projected = torch.tanh(y @ entropy.projection.T)
    expected = 0.0
    for index in range(2):
        covariance = projected[component == index].T.cov(correction=0) + 1e-5 * torch.eye(2)
        expected += multivariate_normal(cov=covariance.numpy()).entropy() / 3
    found = entropy(y, component)
    assert found is not None
    assert found.item() == pytest.approx(expected)


def test_the_entropy_by_hand() -> None:
    entropy = Entropy(1, components=2, size=4)
    entropy.projection.fill_(1.0)
    y = torch.tensor([[0.6], [-0.2], [0.9]]).atanh()
    first = entropy(y, torch.tensor([0, 0, -1]))
    entropy.remember(y, torch.tensor([0, 0, -1]))
    # 0.6 and -0.2 have the variance 0.16; the third sample is of no component, and the other component has none.
    assert first is not None
    assert first.item() == pytest.approx(0.5 * 0.5 * math.log(2 * math.pi * math.e * (0.16 + 1e-5)), rel=1e-5)
    second = entropy(y[2:], torch.tensor([0]))
    # With the two remembered ones 0.6, -0.2 and 0.9: mean 1.3 / 3, mean of squares 1.21 / 3.
    variance = 1.21 / 3 - (1.3 / 3) ** 2
    assert second is not None
    assert second.item() == pytest.approx(0.25 * math.log(2 * math.pi * math.e * (variance + 1e-5)), rel=1e-5)
    assert entropy(y[2:], torch.tensor([1])) is None  # one sample has no covariance


def test_the_memory_keeps_the_last_samples_of_each_component() -> None:
    entropy = Entropy(1, components=2, size=3)
    entropy.projection.fill_(1.0)
    values = torch.arange(1, 9) / 10
    for start, stop in ((0, 2), (2, 3), (3, 5)):
        entropy.remember(values[start:stop, None].atanh(), torch.ones(stop - start, dtype=torch.long))
    assert entropy.seen.tolist() == [0, 5]
    assert sorted(entropy.kept[1, :, 0].tolist()) == pytest.approx([0.3, 0.4, 0.5])
    assert not entropy.kept[0].any()
    entropy.remember(values[:8, None].atanh(), torch.zeros(8, dtype=torch.long))  # more at once than it holds
    assert sorted(entropy.kept[0, :, 0].tolist()) == pytest.approx([0.6, 0.7, 0.8])


def test_evaluation_leaves_the_memory_alone_and_a_state_dict_holds_it() -> None:
    model = _mmim(memory=3).train()
    for seed in range(2):
        batch = _batch(seed=seed)
        model.losses(model(batch), batch)
    state = copy.deepcopy(model.state_dict())
    assert state["entropies.text-audio.kept"].any()
    batch = _batch(seed=7)
    model.eval()
    before = model.losses(model(batch), batch)
    model(batch)
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
    torch.manual_seed(9)
    other = MMIM(dims=DIMS, hidden=8, text_hidden=4, fusion_hidden=6, dropout=0.0, memory=3).double()
    other.load_state_dict(state)
    for each in (model.train(), other.train()):
        losses = each.losses(each(batch), batch)
        assert losses["bound"].item() == before["bound"].item()
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in model.state_dict().items())


def test_every_rank_remembers_the_samples_of_all(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo" if Path("/sys/class/net/lo").exists() else "lo0")
        mp.spawn(memory_ranks.main, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = memory_ranks.remembered([0, 1])
    assert one["text-audio.seen"].tolist() == [10, 10]
    for name, expected in alone.items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], expected, rtol=0, atol=1e-12)


def test_contrast_is_the_cross_entropy_of_finding_ones_own_guess() -> None:
    generator = torch.Generator().manual_seed(2)
    z, guess = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    cosine = F.cosine_similarity(z.unsqueeze(1), guess.unsqueeze(0), dim=2)
    torch.testing.assert_close(contrast(z, guess), F.cross_entropy(cosine, torch.arange(6)))


def test_fusion_by_hand() -> None:
    model, batch = _mmim(), make_batch()
    output = model(batch)
    z = torch.cat([output.features[name] for name in DIMS], dim=1)
    first, second = model.fusion[0], model.fusion[2]
    fused = torch.tanh(torch.tanh(z @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(output.extra["fusion"], fused)
    torch.testing.assert_close(output.logits, (fused @ model.head.weight.T + model.head.bias)[:, 0])
    audio: Any = model.encoders["audio"]
    for row in range(4):
        _, (last, _) = audio.lstm(batch.inputs["audio"][row][batch.masks["audio"][row]])
        torch.testing.assert_close(output.features["audio"][row], audio.mlp[1].weight @ last[0] + audio.mlp[1].bias)


def test_a_trained_text_encoder_gives_its_first_vector_and_a_frozen_one_features() -> None:
    batch, lookup = with_tokens(make_batch()), Lookup(8).double()
    trained, frozen = _mmim(text_encoder=lookup), _mmim(text_encoder=Lookup(8).requires_grad_(False))
    torch.testing.assert_close(trained(batch).features["text"], lookup.table(batch.inputs["text"][:, 0]))
    assert trained.modalities().parameters("text") == [lookup.table.weight]
    assert frozen(batch).features["text"].shape == (4, 4)
    teachable = [p for p in frozen.modalities().parameters("text") if p.requires_grad]
    assert teachable == list(frozen.encoders["text"].parameters())


@pytest.mark.parametrize(
    ("target", "given", "expected"),
    [
        (torch.tensor([0.5, -1.0, 0.0]), {}, [1, 0, -1]),
        (torch.tensor([2.5, 4.0, 4.5]), {"threshold": 4.0}, [0, -1, 1]),
        (torch.tensor([[1.0, -3.0], [2.0, 0.0], [1.0, -1.0]]), {"outputs": 2}, [0, 1, -1]),
        (torch.tensor([2, 0, 1]), {"outputs": 3}, [2, 0, 1]),
    ],
)
def test_components_are_signs_or_classes(target: Tensor, given: dict[str, Any], expected: list[int]) -> None:
    model = _mmim(**given)
    assert model._components(target).tolist() == expected
    assert len(model.entropies["text-audio"].kept) == max(2, given.get("outputs", 1))


def test_pairs_start_at_text_or_else_at_the_first_modality() -> None:
    assert list(_mmim().pairs.values()) == [("text", "audio"), ("text", "vision")]
    every = _mmim(all_pairs=True, dims={"audio": 3, "text": 6, "vision": 4}).pairs.values()
    assert list(every) == [("text", "audio"), ("text", "vision"), ("audio", "vision")]
    without = _mmim(dims={"vision": 4, "audio": 3, "pose": 2}).pairs.values()
    assert list(without) == [("vision", "audio"), ("vision", "pose")]
    assert not _mmim(dims={"audio": 3}).pairs


@pytest.mark.parametrize("kept", [set(k) for n in (1, 2, 3) for k in combinations(DIMS, n)], ids=sorted)
def test_an_absent_modality_takes_part_in_no_loss(kept: set[str]) -> None:
    whole, batch = _mmim(all_pairs=True), _batch()
    absent, empty = batch.only(kept), emptied(batch, set(DIMS) - kept)
    losses = whole.losses(whole.eval()(absent), absent)
    assert list(losses) == (["likelihood", "bound", "cpc"] if len(kept) > 1 else ["cpc"])
    for name, loss in whole.losses(whole(empty), empty).items():
        torch.testing.assert_close(loss, losses[name])
    pairs = [pair for pair in combinations(DIMS, 2) if set(pair) <= kept]
    found = _with_gradient(whole, sum(losses.values()))
    assert {n.split(".")[1] for n in found if n.startswith("estimators")} == {f"{x}-{y}" for x, y in pairs}


def test_a_sample_without_a_modality_is_left_out_of_its_losses() -> None:
    model, batch = _mmim(dims={"audio": 3, "vision": 4}).eval(), _batch()
    some = [0, 1, 3, 4, 7, 8, 9, 10]
    holes = emptied(batch, ["vision"], kept=some)
    losses, few = model.losses(model(holes), holes), rows(batch, some)
    alone = model.losses(model(few), few)
    for name in ("likelihood", "bound"):
        torch.testing.assert_close(losses[name], alone[name])
    output = model(holes)
    audio, vision, fusion = output.features["audio"], output.features["vision"], output.extra["fusion"]
    expected = contrast(audio, model.predictors["audio"](fusion))
    expected = expected + contrast(vision[some], model.predictors["vision"](fusion[some]))
    torch.testing.assert_close(losses["cpc"], 0.1 * expected)


def test_a_batch_of_one_and_a_label_of_neither_sign() -> None:
    model, batch = _mmim(), _batch()
    losses = model.losses(model(rows(batch, [3])), rows(batch, [3]))
    assert losses["cpc"].item() == pytest.approx(0, abs=1e-12)
    assert all(bool(loss.isfinite()) for loss in losses.values())
    z = model(rows(batch, [3])).features
    both = torch.stack([_density(model.estimators[f"text-{m}"], z["text"], z[m]) for m in ("audio", "vision")])
    torch.testing.assert_close(losses["bound"], -0.1 * both.sum())  # no entropy from one sample
    assert model.entropies["text-audio"].seen.tolist() == [1, 0]
    model.losses(model(make_batch()), make_batch())  # labels of 0
    assert model.entropies["text-audio"].seen.tolist() == [1, 0]


def test_features_that_do_not_vary_have_a_finite_entropy() -> None:
    entropy = Entropy(8, components=2, size=4)
    y = torch.ones(6, 8, requires_grad=True)
    found = entropy(y, torch.zeros(6, dtype=torch.long))
    assert found is not None
    found.backward()
    assert y.grad is not None
    assert bool(y.grad.isfinite().all())


def test_a_weight_of_nothing_leaves_the_loss_and_its_layers_out() -> None:
    batch = _batch()
    for given, expected in (({"alpha": 0}, {"likelihood", "bound"}), ({"beta": 0}, {"cpc"})):
        model = _mmim(**given)
        assert set(model.losses(model(batch), batch)) == expected
        layers = {name.split(".")[0] for name, _ in model.named_parameters()}
        assert ("predictors" in layers, "estimators" in layers) == ("cpc" in expected, "bound" in expected)


def test_losses_after_a_forward_in_bfloat16() -> None:
    model, batch = _mmim().float(), _batch()
    batch = Batch({n: x.float() for n, x in batch.inputs.items()}, batch.masks, batch.target.float(), batch.index)
    exact = model.eval().losses(model(batch), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch)
    for name, loss in model.losses(output, batch).items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.05, atol=0.05)


class _Bert(nn.Module):
    """As many parameters as BERT-base, its pooling head included."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = 768
        self.weights = nn.Parameter(torch.empty(109_482_240))


@pytest.mark.parametrize(
    ("audio", "vision", "given", "around"), [(5, 20, {}, 277_121), (74, 47, {"all_pairs": True, "outputs": 3}, 284_611)]
)
def test_parameters_are_those_counted_by_hand(audio: int, vision: int, given: dict[str, Any], around: int) -> None:
    with torch.device("meta"):
        model = MMIM(dims={"text": 768, "audio": audio, "vision": vision}, text_encoder=_Bert(), **given)
    lstms = sum(4 * 16 * (d + 16) + 2 * 4 * 16 + 16 * 16 + 16 for d in (audio, vision))
    fusion = (768 + 32) * 128 + 128 + 128 * 128 + 128 + 129 * given.get("outputs", 1)
    predictors = 129 * (768 + 16 + 16)
    estimators = sum(2 * (16 * x + 16 + 16 * 16 + 16) for x in (768, 768, *((16,) if given else ())))
    assert lstms + fusion + predictors + estimators == around
    assert sum(p.numel() for p in model.parameters()) == 109_482_240 + around


def test_encoders_are_balanced_and_nothing_else() -> None:
    model = _mmim()
    groups = model.modalities()
    own = [id(p) for name in groups for p in groups.parameters(name)]
    assert sorted(own) == sorted(id(p) for p in model.encoders.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": -0.1}, "`alpha` and `beta` should be non-negative. Found `alpha = -0.1`, `beta = 0.1`"),
        ({"beta": -1.0}, "Found `alpha = 0.1`, `beta = -1.0`"),
        ({"memory": 0}, "`memory` should be at least 1. Found `memory = 0`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _mmim(**given)


@pytest.mark.parametrize("balanced", [False, True])
def test_training_lowers_the_loss(tmp_path: Path, balanced: bool) -> None:
    data = few_utterances(tmp_path / "data")
    torch.manual_seed(0)
    model = MMIM(dims=DATA_DIMS, hidden=8, text_hidden=4, fusion_hidden=8, dropout=0.0)
    train = data.split("train")
    whole = train.batch(range(len(train)))

    def parts() -> tuple[float, float]:
        likelihood = model.losses(model.eval()(whole), whole)["likelihood"].item()
        return make_step(model, whole, F.l1_loss).loss.item(), likelihood

    before = parts()
    balancer = AGS(model.modalities()) if balanced else None
    fit(model, train=train, valid=data.split("valid"), balancer=balancer, epochs=4, batch_size=14, lr=0.02)
    after = parts()
    assert after[0] < before[0]
    assert after[1] < before[1]
    assert int(model.entropies["text-audio"].seen.sum()) > 0  # type: ignore[operator]

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, emptied, make_batch
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from equipoise.models import CMIB
from equipoise.models.cmib import divergence


def _cmib(**given: Any) -> Any:
    torch.manual_seed(0)
    small = {"dims": DIMS, "hidden": 6, "heads": 2, "layers": 1, "bottleneck": 9, "dropout": 0.0}
    return CMIB(**{**small, **given}).double().eval()


def test_a_bottleneck_by_hand() -> None:
    narrow: Any = _cmib(dims={"audio": 3}, hidden=1, heads=1, bottleneck=2).bottleneck
    values = {"up": [[2.0], [-1.0]], "mean": [[3.0, 1.0]], "deviation": [[1.0, 0.0]]}
    with torch.no_grad():
        for name, weight in values.items():
            layer = getattr(narrow, name)
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
    # relu of (5, -2.5) is (5, 0): the mean is 15, the deviation softplus(5 - 5) = log 2.
    code, mean, std = narrow(torch.tensor([[2.5]]).double())
    assert (code.item(), mean.item()) == (15.0, 15.0)
    assert std.item() == pytest.approx(0.6931471805599453)


def test_noise_is_drawn_while_training_alone() -> None:
    narrow: Any = _cmib().bottleneck
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).double()
    code, mean, std = narrow(x)
    assert torch.equal(code, mean)
    torch.manual_seed(5)
    drawn, _, _ = narrow.train()(x)
    torch.manual_seed(5)
    torch.testing.assert_close(drawn, mean + std * torch.randn(3, 6, dtype=torch.float64))


def test_divergence_is_that_of_two_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(2)
    mean = torch.randn(4, 5, generator=generator).double()
    std = torch.rand(4, 5, generator=generator).double() + 0.1
    present = torch.tensor([True, False, True, True])
    expected = kl_divergence(Normal(mean, std), Normal(torch.zeros(()).double(), torch.ones(()).double()))
    torch.testing.assert_close(divergence(mean, std, present), expected[present].mean())
    missing = std.masked_fill(~present.unsqueeze(1), 0).requires_grad_()
    torch.autograd.backward(divergence(mean, missing, present))
    assert missing.grad is not None
    assert bool(missing.grad.isfinite().all())
    assert divergence(mean, std, torch.zeros(4, dtype=torch.bool)).item() == 0


def test_text_is_its_last_real_frame_behind_a_convolution() -> None:
    model, batch = _cmib(variant="early"), make_batch(pad=2)
    weight: Any = model.encoders["text"].conv.weight
    for row in range(4):
        frames = batch.inputs["text"][row][batch.masks["text"][row]]
        before = frames[-2] if len(frames) > 1 else torch.zeros(6).double()
        expected = weight[:, :, 0] @ before + weight[:, :, 1] @ frames[-1]  # what follows is the edge
        torch.testing.assert_close(model(batch).features["text"][row], expected)


@pytest.mark.parametrize("variant", ["complete", "early", "late"])
def test_the_variants_have_the_bottlenecks_of_the_paper(variant: str) -> None:
    model, batch = _cmib(variant=variant), make_batch()
    output = model(batch)
    codes = {}
    for name in DIMS:
        encoder: Any = model.encoders[name]
        narrow, encoder.bottleneck = encoder.bottleneck, None
        plain = model.encode(batch)[name].value
        encoder.bottleneck = narrow
        assert (narrow is None) == (variant == "early")
        codes[name] = plain if narrow is None else narrow.mean(narrow.up(plain).relu())
        torch.testing.assert_close(output.features[name], codes[name])
    fused = F.relu(F.linear(torch.cat(list(codes.values()), dim=1), model.fusion.weight, model.fusion.bias))
    if variant != "late":
        fused = model.bottleneck.mean(model.bottleneck.up(fused).relu())
    torch.testing.assert_close(output.extra["fused"], fused)
    torch.testing.assert_close(output.logits, F.linear(fused, model.head.weight, model.head.bias)[:, 0])
    if variant == "early":
        assert output.unimodal is None
    else:
        expected = {m: F.linear(z, model.heads[m].weight, model.heads[m].bias)[:, 0] for m, z in codes.items()}
        torch.testing.assert_close(output.unimodal, expected)


@pytest.mark.parametrize("variant", ["complete", "early", "late"])
def test_losses_are_counted_over_what_is_there(variant: str) -> None:
    model = _cmib(variant=variant, beta=0.5, lambda_uni=2.0)
    batch = replace(emptied(make_batch(), ["audio"], kept=[1]), target=torch.tensor([1.0, -2.0, 0.5, 3.0]).double())
    output = model(batch)
    losses = model.losses(output, batch)
    expected = {}
    if variant != "late":
        expected["bottleneck"] = 0.5 * divergence(output.extra["mean"], output.extra["std"], torch.ones(4) > 0)
    for name in DIMS if variant != "early" else []:
        rows = [1] if name == "audio" else [0, 1, 2, 3]
        normal = Normal(output.extra[f"mean/{name}"][rows], output.extra[f"std/{name}"][rows])
        expected[f"bottleneck/{name}"] = 0.5 * kl_divergence(normal, Normal(0.0, 1.0)).mean()
        expected[f"unimodal/{name}"] = 2.0 * (output.unimodal[name] - batch.target)[rows].abs().mean()
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])
    absent = batch.only(["text", "vision"])
    assert "bottleneck/audio" not in model.losses(model(absent), absent)
    nobody = emptied(batch, ["audio"])
    assert all(float(x.detach()) == 0 for n, x in model.losses(model(nobody), nobody).items() if n.endswith("audio"))


def test_losses_of_classes_are_cross_entropies() -> None:
    model, target = _cmib(outputs=3), torch.tensor([2, 0, 1, 1])
    batch = replace(emptied(make_batch(), ["vision"], kept=[0, 3]), target=target)
    output = model(batch)
    loss = model.losses(output, batch)["unimodal/vision"]
    picked = output.unimodal["vision"][[0, 3]].log_softmax(dim=1)[[0, 1], [2, 1]]
    torch.testing.assert_close(loss.double(), -picked.mean(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 768, "audio": 74, "vision": 47}, {}),
        ({"text": 768, "audio": 74, "vision": 47}, {"variant": "early"}),
        ({"text": 768, "audio": 74, "vision": 47}, {"variant": "late", "outputs": 3}),
        ({"audio": 74, "pose": 9}, {"hidden": 20, "bottleneck": 64, "layers": 2}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = CMIB(dims=dims, **given)
    variant, outputs, layers = given.get("variant", "complete"), given.get("outputs", 1), given.get("layers", 3)
    d, h = given.get("hidden", 50), given.get("bottleneck", 1024)
    narrow = (d * h + h) + 2 * (h * d + d)
    block = 2 * 2 * d + (4 * d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
    expected = len(dims) * d * d + d + d * outputs + outputs
    for name, dim in dims.items():
        expected += 3 * dim * d + (0 if name == "text" else d * d + d + layers * block + 2 * d)
        expected += 0 if variant == "early" else narrow + d * outputs + outputs
    expected += 0 if variant == "late" else narrow
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "full"}, r"\"complete\", \"early\" or \"late\". Found `variant = 'full'`"),
        ({"pool": "max"}, r"\"last\" or \"mean\". Found `pool = 'max'`"),
        ({"beta": -1.0}, r"should be non-negative. Found `beta = -1.0`, `lambda_uni = 1.0`"),
        ({"lambda_uni": -0.5}, r"Found `beta = 0.001`, `lambda_uni = -0.5`"),
        ({"heads": 4}, r"`heads` should divide the width 6. Found `heads = 4`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cmib(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(
        lambda: CMIB(dims=DATA_DIMS, hidden=6, heads=2, layers=1, bottleneck=16, dropout=0.0), data, lr=0.01
    )
    assert losses[-1] < losses[0]

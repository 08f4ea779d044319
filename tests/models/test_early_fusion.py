from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, Lookup, make_batch, rows
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor

from equipoise.models import EarlyFusion


def _early(**given: Any) -> EarlyFusion:
    torch.manual_seed(0)
    return EarlyFusion(**{"dims": DIMS, "hidden": 4, "dropout": 0.0, **given}).double()


def _standard(x: Tensor, norm: Any, eps: float, *, training: bool) -> Tensor:
    """Batch normalisation by its definition, with the biased variance of the batch or the running statistics."""
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean, variance = x.mean(dim=0), (x - x.mean(dim=0)).square().mean(dim=0)
    out: Tensor = norm.weight * (x - mean) / (variance + eps).sqrt() + norm.bias
    return out


def _maxout(x: Tensor, weight: Tensor, bias: Tensor, pieces: int) -> Tensor:
    """The largest of each unit's linear functions, one unit at a time."""
    units = [
        torch.stack([x @ weight[pieces * i + j] + bias[pieces * i + j] for j in range(pieces)]).amax(dim=0)
        for i in range(len(weight) // pieces)
    ]
    return torch.stack(units, dim=1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pieces", [2, 3])
def test_the_network_by_hand(training: bool, pieces: int) -> None:
    model = _early(outputs=3, maxout=(5, 4), pieces=pieces)
    parts: Any = model.parts
    with torch.no_grad():  # statistics and scales that are not the initial ones
        for name, buffer in model.named_buffers():
            if name.startswith(("parts", "first", "second")) and buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
        for name, p in model.named_parameters():
            if ".norm." in name:
                p.add_(torch.rand_like(p))
    features = {m: torch.randn(6, model.widths[m], dtype=torch.float64) for m in DIMS}
    expected = {name: x.clone() for name, x in model.state_dict().items()}
    x = torch.cat([_standard(features[m], parts[m][0].norm, 1e-4, training=training) for m in DIMS], dim=1)
    weight = torch.cat([parts[m][1].weight for m in DIMS], dim=1)
    x = _standard(_maxout(x, weight, model.bias, pieces), model.first_norm.norm, 1e-5, training=training)
    x = _maxout(x, model.second.weight, model.second.bias, pieces)
    x = _standard(x, model.second_norm.norm, 1e-5, training=training)
    output = model.train(training).fuse(features)
    torch.testing.assert_close(output.extra["fused"], x)
    torch.testing.assert_close(output.logits, x @ model.head.weight.T + model.head.bias)
    moved = any(not torch.equal(x, expected[name]) for name, x in model.state_dict().items())
    assert moved is training


def test_a_lone_sample_in_training_is_what_it_is_in_evaluation() -> None:
    model, batch = _early(), make_batch()
    with torch.no_grad():
        model.train()(batch)  # other statistics than the first
    before = {name: x.clone() for name, x in model.state_dict().items()}
    alone = model(rows(batch, [1]))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    torch.testing.assert_close(alone.logits, model.eval()(rows(batch, [1])).logits)
    torch.testing.assert_close(alone.logits, model(batch).logits[1:2])


def test_dropout_thins_both_layers_by_the_same_rate() -> None:
    model = _early(maxout=(400, 300), dropout=0.3).train()
    fused = model(make_batch()).extra["fused"]
    assert (fused == 0).double().mean().item() == pytest.approx(0.3, abs=0.05)


def test_pooled_inputs_are_concatenated_and_nothing_else() -> None:
    model, batch = _early(encoder="pool"), make_batch()
    for name, x in model(batch).features.items():
        for row in range(4):
            torch.testing.assert_close(x[row], batch.inputs[name][row][batch.masks[name][row]].mean(dim=0))
    assert not list(model.encoders.parameters())
    groups = model.modalities()
    assert [tuple(p.shape) for p in groups.parameters("audio")] == [(3,), (3,), (24, 3)]  # 13 wide to 12 units of two


def test_parts_are_a_stage_of_their_own_and_stand_in_for_a_frozen_encoder() -> None:
    model = _early(maxout=(5, 4))
    groups = model.modalities("parts")
    assert {m: [tuple(p.shape) for p in groups.parameters(m)] for m in groups} == {
        m: [(8,), (8,), (10, 8)] for m in DIMS
    }
    frozen = _early(maxout=(5, 4), text_encoder=Lookup().requires_grad_(False)).modalities()
    assert [tuple(p.shape) for p in frozen.parameters("text")] == [(5,), (5,), (10, 5)]


@pytest.mark.parametrize(
    ("dims", "given", "total", "first", "second"),
    [
        # UR-FUNNY's sizes without the transformers: 2304 wide.
        ({"text": 768, "audio": 768, "vision": 768}, {"outputs": 2}, 2304, 2048, 1024),
        ({"audio": 512, "vision": 512}, {"outputs": 10, "maxout": (2048, 1024)}, 1024, 2048, 1024),
        ({"audio": 5, "vision": 4}, {"pieces": 4}, 9, 8, 4),
    ],
)
def test_widths_and_parameters(
    dims: dict[str, int], given: dict[str, Any], total: int, first: int, second: int
) -> None:
    with torch.device("meta"):
        model = EarlyFusion(dims=dims, encoder="pool", **given)
    pieces, outputs = given.get("pieces", 2), given.get("outputs", 1)
    norms = 2 * (total + first + second)
    linear = (total + 1) * first * pieces + (first + 1) * second * pieces + (second + 1) * outputs
    assert sum(p.numel() for p in model.parameters()) == norms + linear


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pieces": 1}, "`pieces` should be at least 2. Found `pieces = 1`"),
        ({"maxout": (8, 0)}, r"`maxout` should be two positive widths. Found `maxout = \[8, 0\]`"),
        ({"maxout": (8,)}, r"`maxout` should be two positive widths. Found `maxout = \[8\]`"),
        ({"encoder": "cnn"}, "`encoder` should be .* Found `encoder = 'cnn'`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _early(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data", task="classification")
    # 42 rows in batches of 41: the last of each epoch is a sample alone.
    losses = epoch_losses(
        lambda: EarlyFusion(dims=DATA_DIMS, outputs=3, hidden=4, dropout=0.0), data, epochs=6, batch_size=41
    )
    assert len(data.split("train")) % 41 == 1
    assert losses[-1] < losses[0]

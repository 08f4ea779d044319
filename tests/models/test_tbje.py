from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, emptied, make_batch
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor

from equipoise.models import TBJE


def _tbje(**given: Any) -> TBJE:
    small = {"dims": DIMS, "hidden": 8, "heads": 2, "layers": 3, "feed_forward": 6, "glimpses": 4, "dropout": 0.0}
    torch.manual_seed(0)
    return TBJE(**{**small, **given}).double()


def _norm(layer: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    out: Tensor = layer.weight * centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() + layer.bias
    return out


def _attention(layer: Any, queries: Tensor, source: Tensor, heads: int) -> Tensor:
    """One head after the other, then the projection of all."""
    width = queries.shape[1] // heads
    found = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        q, k, v = (
            queries @ layer.query.weight[part].T,
            source @ layer.key.weight[part].T,
            source @ layer.value.weight[part].T,
        )
        found.append((q @ k.T / width**0.5).softmax(dim=1) @ v)
    out: Tensor = torch.cat(found, dim=1) @ layer.out.weight.T + layer.out.bias
    return out


def _glimpses(layer: Any, x: Tensor) -> Tensor:
    hidden = (x @ layer.up.weight.T + layer.up.bias).clamp(min=0)
    seen = []
    for weight in layer.scores.weight:
        exponents = (hidden @ weight).exp()
        seen.append((exponents / exponents.sum()) @ x)
    return torch.stack(seen)


def _one_sample(model: Any, frames: dict[str, Tensor]) -> Tensor:
    """The released code's network on one sample without padding, apart from the biases that ours leaves out."""
    x = {name: model.encoders[name](values)[0] for name, values in frames.items()}
    for layer in range(model.layers):
        after = {}
        for name, values in x.items():
            stream = model.streams[name]
            block = stream.blocks[layer]
            u = _norm(block.own_norm, values + _attention(block.own, values, values, 2))
            if name != model.pivot:
                u = _norm(block.guide_norm, u + _attention(block.guide, u, x[model.pivot], 2))
            inside = (u @ block.feed_forward.up.weight.T + block.feed_forward.up.bias).clamp(min=0)
            inside = inside @ block.feed_forward.down.weight.T + block.feed_forward.down.bias
            y = values + _norm(block.norm, u + inside)
            if layer < model.layers - 1:
                seen = _glimpses(stream.glimpses[layer], y)
                for i in range(min(len(seen), len(y))):
                    seen[i] = seen[i] + y[i]
                y = _norm(stream.norms[layer], seen)
            after[name] = y
        x = after
    total = sum(
        _glimpses(model.streams[name].last, x[name])[0] @ model.streams[name].merge.weight.T
        + model.streams[name].merge.bias
        for name in x
    )
    out: Tensor = _norm(model.norm, total) @ model.head.weight.T + model.head.bias
    return out


@pytest.mark.parametrize("pivot", [None, "vision"])
def test_each_sample_is_that_of_the_definition(pivot: str | None) -> None:
    # Four glimpses: of the lengths 1 to 7 some end before, some at and some behind the fourth frame.
    model, batch = _tbje(outputs=3, pivot=pivot), make_batch()
    assert model.pivot == (pivot or "text")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.add_(torch.rand_like(p))
        logits = model(batch).logits
        for row in range(4):
            frames = {name: batch.inputs[name][row][batch.masks[name][row]] for name in DIMS}
            torch.testing.assert_close(logits[row], _one_sample(model, frames))


def test_glimpses_that_prefer_nothing_are_means_over_real_frames() -> None:
    model, batch = _tbje(layers=1, dims={"text": 6}), make_batch()
    last: Any = model.streams["text"]
    with torch.no_grad():
        last.last.scores.weight.zero_()
        last.merge.weight.copy_(torch.eye(16, 8))
        last.merge.bias.zero_()
    stream = last.blocks[0](model.encode(batch)["text"], model.encode(batch)["text"])
    for row in range(4):
        mean = stream.values[row][batch.masks["text"][row]].mean(dim=0)
        torch.testing.assert_close(model(batch).features["text"][row, :8], mean)


def test_the_pivot_guides_and_is_not_guided() -> None:
    model, batch = _tbje(), make_batch()
    plain, without = model(batch).features, model(emptied(batch, ["text"])).features
    assert not torch.allclose(plain["audio"], without["audio"])
    silent = model(emptied(batch, ["audio"])).features
    assert torch.equal(silent["text"], plain["text"])
    assert torch.equal(silent["vision"], plain["vision"])
    streams: Any = model.streams
    assert [name for name in DIMS if streams[name].blocks[0].guide is None] == ["text"]
    assert _tbje(dims={"audio": 3, "vision": 4}).pivot == "audio"


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 300, "audio": 80}, {"outputs": 7}),
        ({"text": 300, "audio": 80, "vision": 512}, {"outputs": 6, "layers": 4, "feed_forward": 2048}),
        ({"audio": 74}, {"layers": 1}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = TBJE(dims=dims, **given)
    layers, wide, outputs = given.get("layers", 6), given.get("feed_forward", 1024), given.get("outputs", 1)
    attention, network = 4 * 512 * 512 + 512, 512 * wide + wide + wide * 512 + 512
    expected = 2 * 1024 + 1024 * outputs + outputs
    for i, d in enumerate(dims.values()):
        guided = attention + 2 * 512 if i else 0
        expected += 4 * 512 * (d + 512) + 8 * 512
        expected += layers * (attention + network + 2 * 2 * 512 + guided)
        expected += (layers - 1) * (512 * wide + wide + wide * 60 + 2 * 512)
        expected += 512 * wide + wide + wide + 512 * 1024 + 1024
    assert sum(p.numel() for p in model.parameters()) == expected


def test_streams_are_a_stage_of_their_own() -> None:
    model = _tbje()
    groups = model.modalities("streams")
    owned = {id(p) for name in groups for p in groups.parameters(name)}
    left = [name for name, p in model.named_parameters() if id(p) not in owned]
    assert {name.split(".")[0] for name in left} == {"encoders", "norm", "head"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 0}, "`layers` should be positive. Found `layers = 0`"),
        ({"glimpses": 0}, "`glimpses` should be positive. Found `glimpses = 0`"),
        ({"pivot": "pose"}, r"`pivot` should be one of \['text', .*\]. Found `pivot = 'pose'`"),
        ({"heads": 3}, "`heads` should divide the width 8"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _tbje(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(
        lambda: TBJE(dims=DATA_DIMS, hidden=4, heads=2, layers=2, feed_forward=4, glimpses=3, dropout=0.0), data
    )
    assert losses[-1] < losses[0]

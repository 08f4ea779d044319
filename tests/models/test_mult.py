from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, make_batch
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor

from equipoise.core import Batch
from equipoise.models import MulT

LENGTHS = {"text": (5, 2, 1, 3), "audio": (7, 3, 0, 6), "vision": (2, 6, 3, 0)}  # two samples lack a modality


def _mult(**given: Any) -> Any:
    torch.manual_seed(0)
    return MulT(**{"dims": DIMS, "hidden": 4, "heads": 2, "layers": 2, **given}).double().eval()


def _convolved(layer: Any, x: Tensor) -> Tensor:
    weight = layer.conv.weight  # [hidden, d, k]
    k, d = weight.shape[2], weight.shape[0]
    frames = []
    for t in range(len(x)):
        frame = torch.zeros(d, dtype=x.dtype)
        for j in range(k):
            if 0 <= t + j - k // 2 < len(x):
                frame = frame + weight[:, :, j] @ x[t + j - k // 2]
        place = [
            math.sin(t / 10_000 ** (i / d)) if i % 2 == 0 else math.cos(t / 10_000 ** ((i - 1) / d)) for i in range(d)
        ]
        frames.append(frame + torch.tensor(place, dtype=x.dtype))
    return torch.stack(frames)


def _normed(layer: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    out: Tensor = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias
    return out


def _attended(layer: Any, query: Tensor, source: Tensor | None) -> Tensor:
    if source is None:
        return torch.zeros_like(query)
    size = query.shape[1] // layer.heads
    heads = []
    for h in range(layer.heads):
        part = slice(h * size, (h + 1) * size)
        q, k, v = (
            (x @ w.weight.T)[:, part] for x, w in ((query, layer.query), (source, layer.key), (source, layer.value))
        )
        scores = (q @ k.T / math.sqrt(size)).exp()
        heads.append(scores / scores.sum(dim=1, keepdim=True) @ v)
    out: Tensor = torch.cat(heads, dim=1) @ layer.out.weight.T + layer.out.bias
    return out


def _through(part: Any, x: Tensor, source: Tensor | None, *, crossmodal: bool) -> Tensor:
    for block in part.blocks:
        query = _normed(block.norm, x)
        keys = query if not crossmodal else None if source is None else _normed(block.source_norm, source)
        x = x + _attended(block.attention, query, keys)
        up, down = block.feed_forward.up, block.feed_forward.down
        hidden = (_normed(block.feed_forward_norm, x) @ up.weight.T + up.bias).clamp(min=0)
        x = x + hidden @ down.weight.T + down.bias
    return _normed(part.norm, x)


def _by_hand(model: Any, batch: Batch, row: int) -> tuple[dict[str, Tensor], Tensor]:
    """One sample, its real frames alone."""
    low: dict[str, Tensor | None] = {}
    for name in model.dims:
        real = batch.inputs[name][row][batch.masks[name][row]]
        low[name] = _convolved(model.encoders[name], real) if len(real) else None
    features = {}
    for name in model.dims:
        own = low[name]
        if own is None:
            features[name] = torch.zeros(2 * model.hidden, dtype=torch.float64)
            continue
        stream = model.streams[name]
        answers = [
            _through(stream.crossmodal[other], own, low[other], crossmodal=True)
            for other in model.dims
            if other != name
        ]
        out = _through(stream.memory, torch.cat(answers, dim=1), None, crossmodal=False)
        features[name] = out[-1] if model.pool == "last" else out.mean(dim=0)
    h = torch.cat(list(features.values()))
    one, two = model.mlp[0], model.mlp[3]
    h = h + two.weight @ (one.weight @ h + one.bias).clamp(min=0) + two.bias
    return features, model.head.weight @ h + model.head.bias


@pytest.mark.parametrize("given", [{}, {"pool": "mean", "kernel": 5, "self_layers": 1}, {"kernel": 1, "layers": 1}])
def test_the_model_by_hand(given: dict[str, Any]) -> None:
    model, batch = _mult(outputs=3, **given), make_batch(LENGTHS, pad=2)
    output = model(batch)
    for row in range(4):
        features, logits = _by_hand(model, batch, row)
        torch.testing.assert_close(output.logits[row], logits)
        for name, expected in features.items():
            torch.testing.assert_close(output.features[name][row], expected)


def test_the_defaults_are_those_of_mosi() -> None:
    defaults = {name: p.default for name, p in inspect.signature(MulT).parameters.items()}
    paper = {
        "hidden": 40,
        "heads": 10,
        "layers": 4,
        "kernel": 3,
        "text_dropout": 0.2,
        "dropout": 0.2,
        "output_dropout": 0.1,
    }
    assert {name: defaults[name] for name in paper} == paper


def _of_transformer(d: int, layers: int, *, crossmodal: bool) -> int:
    attention = 4 * d * d + d
    forward = d * 4 * d + 4 * d + 4 * d * d + d
    norms = (3 if crossmodal else 2) * 2 * d
    return layers * (attention + forward + norms) + 2 * d


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 300, "audio": 74, "vision": 47}, {}),
        ({"text": 300, "audio": 74}, {"layers": 2, "kernel": 1, "outputs": 7}),
        ({"text": 300, "audio": 74, "vision": 47, "pose": 20}, {"self_layers": 1}),
        ({"vision": 47}, {}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = MulT(dims=dims, **given)
    d, layers, outputs, k = 40, given.get("layers", 4), given.get("outputs", 1), given.get("kernel", 3)
    depth = given.get("self_layers", max(layers, 3))
    count = len(dims)
    wide = d * max(1, count - 1)
    expected = sum(dims.values()) * d * k
    expected += count * (count - 1) * _of_transformer(d, layers, crossmodal=True)
    expected += count * _of_transformer(wide, depth, crossmodal=False)
    h = wide * count
    expected += 2 * (h * h + h) + h * outputs + outputs
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("audio", "vision", "outputs", "released"),
    [(5, 20, 1, 1_071_211), (74, 35, 1, 1_073_731), (74, 35, 8, 1_074_998)],
    ids=["mosi", "mosei", "iemocap"],
)
def test_the_released_codes_count_to_the_parameter(audio: int, vision: int, outputs: int, released: int) -> None:
    dims = {"text": 300, "audio": audio, "vision": vision}
    with torch.device("meta"):
        model = MulT(dims=dims, outputs=outputs, hidden=30, heads=5, layers=5, kernel=1)
    # Its projections to query, key and value have biases, 6 pairs of 5 blocks 30 wide and 3 streams of 5 blocks 60
    # wide; and one norm of scale and shift serves both sides of a crossmodal block.
    biases, norms = 6 * 5 * 3 * 30 + 3 * 5 * 3 * 60, 6 * 5 * 2 * 30
    assert sum(p.numel() for p in model.parameters()) + biases - norms == released


def test_every_ordered_pair_has_a_transformer() -> None:
    model = _mult(dims={"audio": 3, "vision": 4, "text": 6, "pose": 2})
    pairs = [(own, other) for own, stream in model.streams.items() for other in stream.crossmodal]
    assert len(pairs) == len(set(pairs)) == 12
    assert all(own != other for own, other in pairs)


def test_a_block_reads_the_low_level_source() -> None:
    model, seen = _mult(layers=3), []
    for block in model.streams["text"].crossmodal["audio"].blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].values))
    encoded = model.encode(make_batch())
    model.fuse(encoded)
    assert len(seen) == 3
    assert all(torch.equal(source, encoded["audio"].values) for source in seen)


def test_two_stages_share_nothing() -> None:
    model = _mult()
    encoders, streams = model.modalities("encoders"), model.modalities("streams")
    assert encoders.names == streams.names == tuple(DIMS)
    one = {id(p) for name in DIMS for p in encoders.parameters(name)}
    two = {id(p) for name in DIMS for p in streams.parameters(name)}
    rest = {id(p) for part in (model.mlp, model.head) for p in part.parameters()}
    assert not one & two
    assert one | two | rest == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 0}, "`layers` and `self_layers` should be positive. Found `layers = 0`"),
        ({"self_layers": 0}, "Found `layers = 2`, `self_layers = 0`"),
        ({"kernel": 2}, "`kernel` should be positive and odd. Found `kernel = 2`"),
        ({"pool": "max"}, '`pool` should be "last" or "mean". Found `pool = \'max\'`'),
        ({"heads": 3}, "`heads` should divide the width 4. Found `heads = 3`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _mult(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    still: dict[str, Any] = {"dropout": 0.0, "text_dropout": 0.0, "output_dropout": 0.0}
    losses = epoch_losses(
        lambda: MulT(dims=DATA_DIMS, hidden=4, heads=2, layers=1, self_layers=1, **still), data, lr=0.01
    )
    assert losses[-1] < losses[0]

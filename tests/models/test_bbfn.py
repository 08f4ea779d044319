from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import log_loss
from tests.models.builders import DIMS, LENGTHS, emptied, make_batch, rows
from tests.models.learning import DATA_DIMS, few_utterances
from torch import Tensor
from torch.nn import functional as F

from equipoise.balancers import AGS
from equipoise.core import Batch
from equipoise.models import BBFN, Output
from equipoise.training.loop import fit
from equipoise.training.steps import make_step


def _bbfn(**given: Any) -> Any:
    torch.manual_seed(0)
    return BBFN(**{"dims": DIMS, "hidden": 8, "heads": 2, "layers": 2, "dropout": 0.0, **given}).double()


def _attend(attention: Any, query: Tensor, source: Tensor) -> Tensor:
    """Heads one by one, ``[T, d]`` over ``[S, d]``."""
    parts = []
    width = query.shape[1] // attention.heads
    for head in range(attention.heads):
        own = slice(head * width, (head + 1) * width)
        q, k, v = (layer.weight[own] for layer in (attention.query, attention.key, attention.value))
        scores = (query @ q.T) @ (source @ k.T).T / math.sqrt(width)
        parts.append(scores.softmax(dim=1) @ (source @ v.T))
    out: Tensor = torch.cat(parts, dim=1) @ attention.out.weight.T + attention.out.bias
    return out


def _complement(layer: Any, x: Tensor, source: Tensor, control: Tensor, *, gated: bool) -> Tensor:
    def norm(part: Any, frames: Tensor) -> Tensor:
        centred = frames - frames.mean(dim=1, keepdim=True)
        normed: Tensor = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * part.weight + part.bias
        return normed

    new = _attend(layer.attention, norm(layer.norm, x), norm(layer.norm, source))
    if gated:
        retain, compound = (
            1 / (1 + (-(gate.weight @ control + gate.bias)).exp()) for gate in (layer.retain, layer.compound)
        )
        x, new = retain * x, compound * new
    x = x + new
    up, down = layer.feed_forward.up, layer.feed_forward.down
    hidden = (norm(layer.feed_forward_norm, x) @ up.weight.T + up.bias).clamp(min=0)
    out: Tensor = x + hidden @ down.weight.T + down.bias
    return out


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("pool", ["first", "mean"])
def test_the_equations_sample_by_sample(gated: bool, pool: str) -> None:
    model, batch = _bbfn(gated=gated, pool=pool), make_batch(pad=2, rubbish=1e6)
    output = model(batch)
    for row in range(4):
        streams = {}
        for name in DIMS:
            frames = batch.inputs[name][row, : LENGTHS[name][row]]
            before, behind = (torch.zeros(1, frames.shape[1]).double() for _ in range(2))
            around = torch.cat([before, frames, behind])
            taps = model.encoders[name].conv.weight  # [hidden, d, 3]
            streams[name] = sum(around[i : i + len(frames)] @ taps[:, :, i].T for i in range(3))
        heads = {name: [] for name in DIMS}  # type: ignore[var-annotated]
        for other in ("audio", "vision"):
            pair, key = model.fusion[f"text-{other}"], f"separator/text-{other}"
            one, two = streams["text"], streams[other]
            for index in range(2):
                vectors = []
                for encoder, x in zip(pair.separators[index].encoders, (one, two), strict=True):
                    if index == 0:
                        vectors.append(encoder.weight @ x.mean(dim=0) + encoder.bias)
                    else:
                        states = encoder.rnn(x)[0].mean(dim=0)
                        vectors.append((states[:8] + states[8:]) / 2)
                first, _, last = pair.separators[index].discriminator
                said = [last.weight @ (first.weight @ s + first.bias).clamp(min=0) + last.bias for s in vectors]
                torch.testing.assert_close(output.extra[key][row, index], torch.cat(said))
                control = torch.cat(vectors)
                one, two = (
                    _complement(pair.first[index], one, two, control, gated=gated),
                    _complement(pair.second[index], two, one, control, gated=gated),
                )
            for name, side in (("text", one), (other, two)):
                heads[name].append(side[0] if pool == "first" else side.mean(dim=0))
        for name in DIMS:
            torch.testing.assert_close(output.features[name][row], torch.cat(heads[name]))
        joined = torch.cat([part for name in DIMS for part in heads[name]])
        first, last = model.mlp[0], model.mlp[3]
        deep = last.weight @ (first.weight @ joined + first.bias).clamp(min=0) + last.bias
        expected = model.head.weight @ (joined + deep) + model.head.bias
        torch.testing.assert_close(output.logits[row], expected[0])


def test_the_loss_is_that_of_telling_the_sides_apart() -> None:
    model, batch = _bbfn(lambda_sep=0.3), emptied(make_batch(), ["audio"], kept=[0, 2])
    output = model(batch)
    said, true = [], []
    for other in ("audio", "vision"):
        logits = output.extra[f"separator/text-{other}"]
        assert logits.shape == (4, 2, 2)
        for row in range(4):
            for layer in range(2):
                said.append(logits[row, layer, 0].sigmoid().item())
                true.append(1)
                if other == "vision" or row in (0, 2):
                    said.append(logits[row, layer, 1].sigmoid().item())
                    true.append(0)
    expected = 0.3 * log_loss(true, said)
    assert model.losses(output, batch)["separator"].item() == pytest.approx(expected)


def test_the_loss_by_hand() -> None:
    model = BBFN(dims={"text": 2, "audio": 2}, hidden=2, heads=1, layers=1, lambda_sep=1.0)
    logits = torch.tensor([[[0.0, 0.0]], [[math.log(3), 5.0]]])
    masks = {"text": torch.ones(2, 1, dtype=torch.bool), "audio": torch.tensor([[True], [False]])}
    batch = Batch({name: torch.zeros(2, 1, 2) for name in masks}, masks, torch.zeros(2), torch.arange(2))
    output = Output(torch.zeros(2), None, {}, {"separator/text-audio": logits})
    # Text at 1/2 and 3/4, audio at 1/2; the second sample has no audio.
    expected = (math.log(2) + math.log(4 / 3) + math.log(2)) / 3
    assert model.losses(output, batch)["separator"].item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_teaches_all_that_comes_before_the_discriminators() -> None:
    model, batch = _bbfn(layers=2), make_batch(dict.fromkeys(DIMS, (9, 8, 7, 6)))
    model.losses(model(batch), batch)["separator"].backward()
    taught = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    for start in ("encoders.audio", "encoders.text", "fusion.text-audio.separators.1", "fusion.text-audio.first.0"):
        assert any(name.startswith(start) for name in taught)
    assert not any(name.startswith(("mlp", "head", "fusion.text-audio.first.1")) for name in taught)


@pytest.mark.parametrize("kept", [["text"], ["audio"], ["audio", "vision"]])
def test_what_is_missing_takes_part_in_no_loss(kept: list[str]) -> None:
    model, batch = _bbfn(), make_batch()
    few, empty = batch.only(kept), emptied(batch, set(DIMS) - set(kept))
    losses = model.losses(model(few), few)
    assert bool(losses["separator"].isfinite())
    torch.testing.assert_close(model.losses(model(empty), empty), losses)
    nothing = emptied(batch, DIMS)
    assert model.losses(model(nothing), nothing)["separator"].item() == 0
    one = rows(batch, [1])
    assert bool(model.losses(model(one), one)["separator"].isfinite())


def test_a_side_without_the_other_keeps_what_the_retain_gate_lets_pass() -> None:
    model, batch = _bbfn(layers=1, dims={"text": 6, "audio": 3}), make_batch()
    layer = model.fusion["text-audio"].first[0]
    torch.nn.init.zeros_(layer.feed_forward.down.weight)
    torch.nn.init.zeros_(layer.feed_forward.down.bias)
    torch.nn.init.zeros_(layer.retain.weight)
    torch.nn.init.constant_(layer.retain.bias, math.log(3))
    features = model(batch.only(["text"])).features
    torch.testing.assert_close(features["text"], 0.75 * model.encode(batch)["text"].values[:, 0])
    assert not features["audio"].any()


def test_the_first_frame_is_the_first_real_one() -> None:
    model, batch = _bbfn(), make_batch()
    frames = {name: F.pad(x, (0, 0, 2, 0)) for name, x in batch.inputs.items()}
    masks = {name: F.pad(mask, (2, 0)) for name, mask in batch.masks.items()}
    later = Batch(frames, masks, batch.target, batch.index)
    torch.testing.assert_close(model(later).logits, model(batch).logits)


def test_a_model_of_one_modality_reads_all_of_it() -> None:
    model, batch = _bbfn(dims={"audio": 3}), make_batch()
    output = model(batch)
    for row in range(4):
        stream = model.encode(batch)["audio"].values[row, : LENGTHS["audio"][row]]
        torch.testing.assert_close(output.features["audio"][row], stream.mean(dim=0))
    assert model.losses(output, batch) == {}


def test_pairs_start_at_text_or_else_at_the_first_modality_or_are_given() -> None:
    assert list(_bbfn(dims={"audio": 3, "text": 6, "vision": 4}).pairs) == ["text-audio", "text-vision"]
    assert list(_bbfn(dims={"vision": 4, "audio": 3, "pose": 2}).pairs) == ["vision-audio", "vision-pose"]
    model = _bbfn(pairs=[["vision", "audio"], ["audio", "text"]])
    assert list(model.pairs.values()) == [("vision", "audio"), ("audio", "text")]
    features = model(make_batch()).features
    assert {name: x.shape[1] for name, x in features.items()} == {"text": 8, "audio": 16, "vision": 8}


@pytest.mark.parametrize(
    ("dims", "given", "expected"),
    [
        ({"text": 768, "audio": 5, "vision": 20}, {}, 1_057_091),
        ({"text": 768, "audio": 74, "vision": 47}, {"outputs": 3, "lambda_sep": 0, "layers": 2}, 452_603),
        ({"text": 768, "audio": 74, "vision": 47}, {"gated": False, "layers": 1}, 256_763),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        model = BBFN(dims=dims, **given)
    d, layers = 40, given.get("layers", 5)
    gates = 2 * (2 * d * d + d) if given.get("gated", True) else 0
    complement = (4 * d * d + d) + gates + 4 * d + (8 * d * d + 5 * d)
    discriminator = (4 * d * d + 4 * d) + (4 * d + 1) if given.get("lambda_sep", 0.1) else 0
    vectors = 2 * (d * d + d) + (layers - 1) * 2 * 2 * 3 * (2 * d * d + 2 * d)
    pair = layers * (2 * complement + discriminator) + vectors
    rest = 3 * d * sum(dims.values()) + 2 * (16 * d * d + 4 * d) + (4 * d + 1) * given.get("outputs", 1)
    assert 2 * pair + rest == expected
    assert sum(p.numel() for p in model.parameters()) == expected


def test_a_weight_of_nothing_leaves_the_loss_and_its_layers_out() -> None:
    batch = make_batch()
    plain = _bbfn(lambda_sep=0, gated=False)
    assert plain.losses(plain(batch), batch) == {}
    assert plain(batch).extra == {}
    assert not any("separators" in name for name, _ in plain.named_parameters())
    gated = _bbfn(lambda_sep=0)
    assert any("separators" in name for name, _ in gated.named_parameters())
    assert not any("discriminator" in name for name, _ in gated.named_parameters())


def test_encoders_are_balanced_and_nothing_else() -> None:
    model = _bbfn()
    groups = model.modalities()
    assert {name: [tuple(p.shape) for p in groups.parameters(name)] for name in groups} == {
        "text": [(8, 6, 3)],
        "audio": [(8, 3, 3)],
        "vision": [(8, 4, 3)],
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 0}, "`layers` should be positive. Found `layers = 0`"),
        ({"kernel": 2}, "`kernel` should be positive and odd. Found `kernel = 2`"),
        ({"lambda_sep": -1.0}, "`lambda_sep` should be non-negative. Found `lambda_sep = -1.0`"),
        ({"pool": "max"}, '`pool` should be "first" or "mean". Found `pool = \'max\'`'),
        ({"heads": 3}, "`heads` should divide the width 8. Found `heads = 3`"),
        ({"pairs": [["text", "audio"]]}, r"each of \['text', 'audio', 'vision'\] in one at least"),
        (
            {"pairs": [["text", "audio"], ["text", "gaze"]]},
            r"Found `pairs = .*'gaze'\]\]`",
        ),
        ({"pairs": [["text", "audio"], ["vision", "vision"]]}, "pairs of two names"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _bbfn(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    torch.manual_seed(0)
    model = BBFN(dims=DATA_DIMS, hidden=8, heads=2, layers=2, dropout=0.0)
    train = data.split("train")
    whole = train.batch(range(len(train)))

    def parts() -> tuple[float, float]:
        step = make_step(model.eval(), whole, F.l1_loss)
        return step.loss.item(), model.losses(model(whole), whole)["separator"].item()

    before = parts()
    balancer = AGS(model.modalities())
    fit(model, train=train, valid=data.split("valid"), balancer=balancer, epochs=2, batch_size=14, lr=0.01)
    after = parts()
    assert after[0] < before[0]
    assert after[1] < before[1]

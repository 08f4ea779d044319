from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, emptied, make_batch, rows
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor
from torch.nn import functional as F

from equipoise.models import BIMHA
from equipoise.models.bimha import Vector


def _bimha(**given: Any) -> Any:
    torch.manual_seed(0)
    return BIMHA(**{"dims": DIMS, "hidden": 3, "pair_hidden": 6, "heads": 2, **given}).double().eval()


def _vectors(names: list[str], width: int) -> dict[str, Vector]:
    generator = torch.Generator().manual_seed(1)
    present = torch.ones(2, dtype=torch.bool)
    return {name: Vector(torch.randn(2, width, generator=generator).double(), present) for name in names}


def _token(layer: Any, *vectors: Tensor) -> Tensor:
    """One pair of one sample from the formula."""
    ones = [torch.cat([z, torch.ones(1).double()]) for z in vectors]
    flat = torch.outer(*ones).flatten() if len(ones) == 2 else ones[0]
    token: Tensor = (layer.weight @ flat + layer.bias).clamp(min=0)
    return token


def _heard(model: Any, tokens: Tensor) -> Tensor:
    """What multi-head attention makes of tokens ``[P, d]``, head by head, with the residual and the norm."""
    part, width = model.attention, tokens.shape[1] // model.attention.heads
    heads = []
    for head in range(part.heads):
        rows = slice(head * width, (head + 1) * width)
        q, k, v = (tokens @ getattr(part, what).weight[rows].T for what in ("query", "key", "value"))
        heads.append((q @ k.T / width**0.5).softmax(dim=1) @ v)
    mixed = torch.cat(heads, dim=1) @ part.out.weight.T + part.out.bias
    return F.layer_norm(tokens + mixed, (tokens.shape[1],), model.norm.weight, model.norm.bias)


def test_a_pair_by_hand() -> None:
    model = _bimha(dims={"audio": 3, "vision": 4}, hidden=1, pair_hidden=1, heads=1, attention=False)
    with torch.no_grad():
        model.pairs[0].weight.copy_(torch.tensor([[10.0, 2.0, -1.0, 4.0]]))  # z_a z_v, z_a, z_v and 1
        model.pairs[0].bias.fill_(0.5)
        for layer in (model.mlp[0], model.mlp[3]):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    there = torch.tensor([True])
    z = {
        "audio": Vector(torch.tensor([[3.0]]).double(), there),
        "vision": Vector(torch.tensor([[5.0]]).double(), there),
    }
    assert model.fuse(z).logits.tolist() == [150 + 6 - 5 + 4 + 0.5]
    assert model.fuse({"audio": z["audio"]}).logits.tolist() == [6 + 4 + 0.5]  # only the features of audio are left


@pytest.mark.parametrize("names", [["text"], ["audio", "vision"], ["text", "audio", "vision"]])
@pytest.mark.parametrize("attention", [True, False])
def test_pairs_attend_to_pairs(names: list[str], attention: bool) -> None:
    model, vectors = _bimha(dims={name: DIMS[name] for name in names}, attention=attention), _vectors(names, 3)
    members: list[tuple[str, ...]] = [*combinations(names, 2)] or [(names[0],)]
    for row, logit in enumerate(model.fuse(vectors).logits):
        pairs = zip(members, model.pairs, strict=True)
        tokens = torch.stack([_token(layer, *(vectors[n].value[row] for n in pair)) for pair, layer in pairs])
        tokens = _heard(model, tokens) if attention else tokens
        torch.testing.assert_close(logit, model.mlp(tokens.flatten())[0])


def test_a_pair_without_either_is_not_heard() -> None:
    model, vectors = _bimha(), _vectors(["audio"], 3)
    zeros, audio = torch.zeros(3).double(), vectors["audio"].value[1]
    text_audio, text_vision, audio_vision = model.pairs
    heard = _heard(model, torch.stack([_token(text_audio, zeros, audio), _token(audio_vision, audio, zeros)]))
    expected = model.mlp(torch.cat([heard[0], torch.zeros(6).double(), heard[1]]))
    torch.testing.assert_close(model.fuse(vectors).logits[1], expected[0])
    assert bool((_token(text_vision, zeros, zeros) > 0).any())  # a token that would be heard


def test_vectors_are_the_last_state_and_the_mean_of_real_frames() -> None:
    model, batch = _bimha(), make_batch(pad=3)
    text, audio = model.encoders["text"], model.encoders["audio"]
    for row in range(4):
        frames = batch.inputs["text"][row][batch.masks["text"][row]]
        _, (last, _) = text.lstm(frames)
        expected = (text.mlp[0].weight @ last[0] + text.mlp[0].bias).clamp(min=0)
        torch.testing.assert_close(model(batch).features["text"][row], expected)
        mean = batch.inputs["audio"][row][batch.masks["audio"][row]].mean(dim=0)
        for part in audio.mlp:
            mean = (part[0].weight @ mean + part[0].bias).clamp(min=0)
        torch.testing.assert_close(model(batch).features["audio"][row], mean)


def test_a_sample_without_a_modality_differs_from_one_with_a_vector_of_zeros() -> None:
    model, batch = _bimha(), make_batch()
    alone = rows(emptied(batch, ["text", "vision"]), [0])
    codes = model.encode(alone)
    assert [bool(codes[name].present) for name in DIMS] == [False, True, False]
    there = {name: Vector(code.value, torch.ones_like(code.present)) for name, code in codes.items()}
    assert not torch.allclose(model.fuse(there).logits, model.fuse(codes).logits)


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 768, "audio": 74, "vision": 47}, {}),
        ({"text": 768, "audio": 74, "vision": 47}, {"attention": False, "outputs": 3}),
        ({"audio": 74, "vision": 47, "pose": 20, "gaze": 8}, {"layers": 3}),
        ({"text": 768}, {}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = BIMHA(dims=dims, **given)
    layers, outputs = given.get("layers", 2), given.get("outputs", 1)
    count = {1: 1, 3: 3, 4: 6}[len(dims)]
    products = 33 if len(dims) == 1 else 33 * 33
    expected = count * (products * 64 + 64) + count * 64 * 64 + 64 + 64 * outputs + outputs
    expected += 4 * 64 * 64 + 64 + 2 * 64 if given.get("attention", True) else 0
    for name, d in dims.items():
        first = 4 * 32 * (d + 32) + 2 * 4 * 32 + 32 * 32 + 32
        expected += first if name == "text" else d * 32 + 32 + (layers - 1) * (32 * 32 + 32)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 0}, "`layers` should be positive. Found `layers = 0`"),
        ({"heads": 4}, "`heads` should divide the width 6. Found `heads = 4`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _bimha(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(lambda: BIMHA(dims=DATA_DIMS, hidden=6, pair_hidden=8, heads=2, dropout=0.0), data, lr=0.01)
    assert losses[-1] < losses[0]

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from tests.models.builders import DIMS, LENGTHS, Lookup, emptied, make_batch, rows, with_tokens
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor

from equipoise.core import Batch
from equipoise.functional import canonical_correlations, cca_loss
from equipoise.models import ICCN

SMALL: dict[str, Any] = {"hidden": 5, "text_hidden": 7, "channels": 3, "interaction": 2}


def _iccn(**given: Any) -> Any:
    torch.manual_seed(0)
    return ICCN(**{"dims": DIMS, **SMALL, **given}).double().eval()


def _twice(batch: Batch, times: int = 3) -> Batch:
    """More samples: the same lengths, other frames."""
    lengths = {name: own * times for name, own in LENGTHS.items()}
    return make_batch(lengths, {name: x.shape[2] for name, x in batch.inputs.items()})


def _cnn(layers: Any, image: np.ndarray) -> np.ndarray:
    """Cross-correlations by SciPy, ReLU, maxima over 2 x 2 entries with what is left at the edges, a linear layer."""
    maps = [image]
    for conv in (layers[0], layers[3]):
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        found = []
        for kernels, b in zip(weight, bias, strict=True):
            out = sum(correlate2d(x, k, mode="same") for x, k in zip(maps, kernels, strict=True)) + b
            out = np.maximum(out, 0)
            pooled = [
                [out[i : i + 2, j : j + 2].max() for j in range(0, out.shape[1], 2)] for i in range(0, len(out), 2)
            ]
            found.append(np.array(pooled))
        maps = found
    flat = np.concatenate([x.ravel() for x in maps])
    result: np.ndarray = layers[7].weight.detach().numpy() @ flat + layers[7].bias.detach().numpy()
    return result


def test_interactions_and_classifier_derived_again() -> None:
    model = _iccn(outputs=3)
    batch = emptied(emptied(make_batch(), ["audio"], kept=[0, 2]), ["text"], kept=[0, 1])
    output = model(batch)
    for row in range(4):
        z = {name: output.features[name][row].detach().numpy() for name in DIMS}
        pivot = z["text"] if row < 2 else np.ones(7)
        k = {}
        for name in ("audio", "vision"):
            k[name] = _cnn(model.interactions[name].layers, np.outer(pivot, z[name]))
            if name == "audio" and row in (1, 3):
                k[name] = np.zeros(2)
            found = output.extra[f"interaction/{name}"][row].detach().numpy()
            np.testing.assert_allclose(found, k[name], atol=1e-12)
        joined = np.concatenate([z["text"], k["audio"], k["vision"]])
        expected = model.head.weight.detach().numpy() @ joined + model.head.bias.detach().numpy()
        np.testing.assert_allclose(output.logits[row].detach().numpy(), expected, atol=1e-12)


def test_encoders_derived_again() -> None:
    model, batch = _iccn(), make_batch(pad=2, rubbish=float("nan"))
    features = model(batch).features
    for row in range(4):
        text = batch.inputs["text"][row][batch.masks["text"][row]].mean(dim=0)
        linear = model.encoders["text"].linear
        torch.testing.assert_close(features["text"][row], torch.tanh(linear.weight @ text + linear.bias))
        frames = batch.inputs["audio"][row][batch.masks["audio"][row]]
        stream = model.encoders["audio"]
        along = torch.nn.functional.conv1d(frames.T, stream.conv.weight, stream.conv.bias, padding=1).clamp(min=0).T
        torch.testing.assert_close(features["audio"][row], stream.lstm(along)[0][-1])


def test_a_text_encoder_speaks_by_its_first_token() -> None:
    torch.manual_seed(0)
    model: Any = ICCN(dims=DIMS, **SMALL, text_encoder=Lookup()).double()
    batch = with_tokens(make_batch())
    linear, first = model.encoders["text"].linear, model.text_encoder.table.weight[batch.inputs["text"][:, 0]]
    torch.testing.assert_close(model(batch).features["text"], torch.tanh(first @ linear.weight.T + linear.bias))


def test_the_loss_is_that_of_samples_with_all_three() -> None:
    model, batch = _iccn(lambda_cca=0.3), _twice(make_batch())
    batch.masks["audio"][1] = False
    batch.masks["vision"][4] = False
    batch.masks["text"][7] = False
    output = model(batch)
    kept = [i for i in range(12) if i not in (1, 4, 7)]
    expected = 0.3 * cca_loss(*(output.extra[f"interaction/{name}"][kept] for name in ("audio", "vision")))
    found = model.losses(output, batch)
    assert list(found) == ["cca/audio-vision"]
    torch.testing.assert_close(found["cca/audio-vision"], expected)
    assert expected.item() < -0.01


@pytest.mark.parametrize("kept", [{"audio"}, {"text", "audio"}, {"audio", "vision"}])
def test_without_two_interactions_there_is_no_loss(kept: set[str]) -> None:
    model, batch = _iccn(), make_batch()
    assert model.losses(model(batch.only(kept)), batch.only(kept)) == {}
    empty = emptied(batch, set(DIMS) - kept)
    output = model(empty)
    (loss,) = model.losses(output, empty).values()
    assert loss.item() == 0
    (output.logits.sum() + loss).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_batch_of_one_loses_nothing() -> None:
    model, single = _iccn().train(), rows(make_batch(), [0])
    (loss,) = model.losses(model(single), single).values()
    assert loss.item() == 0
    loss.backward()
    assert not any(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)


def test_each_two_modalities_beside_the_pivot_correlate() -> None:
    dims = {"audio": 3, "vision": 4, "pose": 2, "gaze": 2}
    model = _iccn(dims=dims)
    assert model.pivot == "audio"
    assert list(model.interactions) == ["vision", "pose", "gaze"]
    batch = make_batch(dict.fromkeys(dims, (3, 2, 4, 1, 3, 2)), dims)
    assert list(model.losses(model(batch), batch)) == ["cca/vision-pose", "cca/vision-gaze", "cca/pose-gaze"]
    assert _iccn(dims={"vision": 4, "text": 6}).pivot == "text"
    assert _iccn(lambda_cca=0.0).losses(model(batch), batch) == {}


def test_its_own_loss_makes_the_interactions_correlate() -> None:
    model, batch = _iccn(lambda_cca=1.0), _twice(make_batch(), 10)

    def found() -> Tensor:
        extra = model(batch).extra
        return canonical_correlations(extra["interaction/audio"], extra["interaction/vision"])

    before = found().sum().item()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(25):
        optimizer.zero_grad()
        torch.autograd.backward(list(model.losses(model(batch), batch).values()))
        optimizer.step()
    assert found().sum().item() > before + 0.3


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 768, "audio": 74, "vision": 47}, {}),
        ({"text": 300, "audio": 5}, {"text_hidden": 33, "hidden": 18, "kernel": 5, "outputs": 4}),
        ({"audio": 74}, {}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = ICCN(dims=dims, **given)
    t, h, k = given.get("text_hidden", 64), given.get("hidden", 32), given.get("kernel", 3)
    outputs = given.get("outputs", 1)
    expected = 0
    for name, d in dims.items():
        expected += d * t + t if name == "text" else d * h * k + h + 4 * h * (2 * h + 2)
    pivot = t if "text" in dims else h
    cells = {(64, 32): 16 * 8, (33, 18): 9 * 5}
    for _ in range(len(dims) - 1):
        expected += 8 * k * k + 8 + 16 * 8 * k * k + 16 + 16 * cells[(pivot, h)] * 8 + 8
    expected += (pivot + 8 * (len(dims) - 1)) * outputs + outputs
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden": 0}, "`hidden` should be at least 1. Found `hidden = 0`"),
        ({"kernel": 2}, "`kernel` should be positive and odd. Found `kernel = 2`"),
        ({"lambda_cca": -1.0}, "`lambda_cca` should be non-negative. Found `lambda_cca = -1.0`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _iccn(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(lambda: ICCN(dims=DATA_DIMS, **SMALL, dropout=0.0), data)
    assert losses[-1] < losses[0]

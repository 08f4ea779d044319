from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, Lookup, make_batch
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances

from equipoise.models import FiLM

PAIR = {"audio": 3, "vision": 4}


def _film(**given: Any) -> FiLM:
    torch.manual_seed(0)
    return FiLM(**{"dims": DIMS, "hidden": 4, "dropout": 0.0, **given}).double()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("base", ["text", "audio", "vision"])
def test_the_layer_by_hand(residual: bool, base: str) -> None:
    model = _film(outputs=3, base=base, residual=residual, encoder="pool")
    generators: Any = model.generators
    features = {name: torch.randn(2, dim, dtype=torch.float64) for name, dim in DIMS.items()}
    output = model.fuse(features)
    for row in range(2):
        for i in range(DIMS[base]):
            gamma, beta = (1.0 if residual else 0.0), 0.0
            for name in DIMS:
                if name != base:
                    gamma = gamma + generators[name].weight[i] @ features[name][row]
                    beta = beta + generators[name].weight[DIMS[base] + i] @ features[name][row]
                    gamma = gamma if residual else gamma + generators[name].bias[i]
                    beta = beta if residual else beta + generators[name].bias[DIMS[base] + i]
            expected = gamma * features[base][row, i] + beta
            torch.testing.assert_close(output.extra["fused"][row, i], torch.as_tensor(expected))
    torch.testing.assert_close(output.logits, output.extra["fused"] @ model.head.weight.T + model.head.bias)


def test_numbers_worked_by_hand() -> None:
    # gamma = 1 + 2a, beta = -a; y = gamma v + beta with a = 3, v = 5: 7 * 5 - 3.
    model = _film(dims={"audio": 1, "vision": 1}, encoder="pool")
    generators: Any = model.generators
    with torch.no_grad():
        generators["audio"].weight.copy_(torch.tensor([[2.0], [-1.0]]))
        model.head.weight.fill_(1.0)
        model.head.bias.zero_()
    features = {name: torch.full((1, 1), x, dtype=torch.float64) for name, x in (("audio", 3.0), ("vision", 5.0))}
    assert model.fuse(features).logits.item() == 32.0
    assert model.fuse({"vision": features["vision"]}).logits.item() == 5.0  # nothing modulates it
    assert model.fuse({"audio": features["audio"]}).logits.item() == -3.0  # nothing to scale


@pytest.mark.parametrize(
    ("names", "base"),
    [
        (["text", "audio", "vision"], "vision"),
        (["vision", "audio"], "vision"),
        (["text", "audio"], "audio"),
        (["text"], "text"),
    ],
)
def test_the_base_is_vision_or_else_the_last(names: list[str], base: str) -> None:
    model = _film(dims={name: DIMS[name] for name in names})
    assert model.base == base
    assert set(model.generators) == set(names) - {base}


def test_one_modality_alone_is_a_linear_classifier_in_either_form() -> None:
    for residual in (True, False):
        model = _film(dims={"audio": 3}, residual=residual)
        output = model(make_batch())
        expected = output.features["audio"] @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(output.logits, expected.squeeze(1))


def test_the_layer_is_a_stage_and_stands_in_for_encoders_without_weights() -> None:
    model = _film(dims=PAIR, encoder="pool", outputs=2)
    shapes = {"audio": [(8, 3)], "vision": [(2, 4), (2,)]}
    for groups in (model.modalities("film"), model.modalities("encoders")):
        assert {name: [tuple(p.shape) for p in groups.parameters(name)] for name in groups} == shapes
    frozen = _film(text_encoder=Lookup().requires_grad_(False)).modalities()
    assert [tuple(p.shape) for p in frozen.parameters("text")] == [(16, 5)]


@pytest.mark.parametrize("residual", [True, False])
def test_parameters_of_the_layer_behind_two_resnets(residual: bool) -> None:
    # OGM-GE's on CREMA-D: one linear layer from 512 to scale and shift, and one to the classes.
    shape = {"audio": (1, 257, 299), "vision": (3, 224, 224)}
    dims = {name: c * h * w for name, (c, h, w) in shape.items()}
    with torch.device("meta"):
        model = FiLM(dims=dims, outputs=6, encoder="resnet18", image_shape=shape, residual=residual)
    layer = 512 * 1024 + (0 if residual else 1024) + 512 * 6 + 6
    assert sum(p.numel() for p in model.parameters()) == 11_170_240 + 11_176_512 + layer


def test_a_base_that_is_no_modality_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"`base` should be one of \['text', 'audio', 'vision'\]. Found `base = 'pose'`"
    ):
        _film(base="pose")


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(lambda: FiLM(dims=DATA_DIMS, hidden=4, dropout=0.0), data)
    assert losses[-1] < losses[0]

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, make_batch
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances

from equipoise.models import LMF


def _lmf(**given: Any) -> Any:
    torch.manual_seed(0)
    return LMF(**{"dims": DIMS, "hidden": 3, "text_hidden": 4, "text_out": 2, **given}).double().eval()


def _put(model: LMF, factors: dict[str, list[Any]]) -> None:
    layers: Any = model.factors
    with torch.no_grad():
        for name, values in factors.items():
            layers[name].weight.copy_(torch.tensor(values))


def test_two_ranks_by_hand() -> None:
    model = _lmf(dims={"audio": 3, "vision": 4}, hidden=1, rank=2)
    _put(model, {"audio": [[[2.0], [1.0]], [[-1.0], [3.0]]], "vision": [[[1.0], [-1.0]], [[4.0], [2.0]]]})
    z = {"audio": torch.tensor([[3.0]]).double(), "vision": torch.tensor([[5.0]]).double()}
    # Rank 1: (2 * 3 + 1) * (1 * 5 - 1) = 28. Rank 2: (-1 * 3 + 3) * (4 * 5 + 2) = 0. The sums inside the product, as
    # Eqs. 6 and 7 print it, would give (7 + 0) * (4 + 22) = 182.
    assert model.fuse(z).logits.tolist() == [28.0]
    # Without vision: (2 * 3 + 1) * -1 + 0 * 2.
    assert model.fuse({"audio": z["audio"]}).logits.tolist() == [-7.0]


@pytest.mark.parametrize("names", [["text"], ["audio", "vision"], ["text", "audio", "vision"]])
@pytest.mark.parametrize("outputs", [1, 3])
def test_fusion_is_a_linear_layer_on_the_tensor(names: list[str], outputs: int) -> None:
    model = _lmf(dims={name: DIMS[name] for name in names}, outputs=outputs, rank=3)
    with torch.no_grad():
        model.bias.copy_(torch.arange(1.0, outputs + 1))
    generator = torch.Generator().manual_seed(1)
    z = {name: torch.randn(2, model.widths[name], generator=generator).double() for name in names}
    expected = torch.zeros(2, outputs, dtype=torch.float64)
    for row in range(2):
        for k in range(outputs):
            tensor, weight = torch.ones(1).double(), torch.zeros(1).double()
            for name in names:
                tensor = torch.outer(tensor, torch.cat([z[name][row], torch.ones(1).double()])).flatten()
            weight = torch.zeros_like(tensor)
            for i in range(3):
                part = torch.ones(1).double()
                for name in names:
                    part = torch.outer(part, model.factors[name].weight[i, :, k]).flatten()
                weight = weight + part
            expected[row, k] = weight @ tensor + k + 1
    torch.testing.assert_close(model.fuse(z).logits, expected.squeeze(-1) if outputs == 1 else expected)


def test_subnetworks_by_hand() -> None:
    model, batch = _lmf(), make_batch()
    features = model(batch).features
    text: Any = model.encoders["text"]
    for row in range(4):
        _, (last, _) = text.lstm(batch.inputs["text"][row][batch.masks["text"][row]])
        torch.testing.assert_close(features["text"][row], text.mlp[1].weight @ last[0] + text.mlp[1].bias)
        audio = batch.inputs["audio"][row][batch.masks["audio"][row]].mean(dim=0)
        for part in model.encoders["audio"].mlp:
            audio = (part[0].weight @ audio + part[0].bias).clamp(min=0)
        torch.testing.assert_close(features["audio"][row], audio)


def test_weights_mix_the_ranks() -> None:
    plain, weighted, batch = _lmf(rank=2), _lmf(rank=2, weighted=True), make_batch()
    weighted.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(weighted(batch).logits, plain(batch).logits)  # they start at 1
    with torch.no_grad():
        weighted.weights.copy_(torch.tensor([0.0, 2.0]))
    only = _lmf(rank=1)
    state = {name: value[1:] if name.startswith("factors") else value for name, value in plain.state_dict().items()}
    only.load_state_dict(state)
    torch.testing.assert_close(weighted(batch).logits, 2 * only(batch).logits)


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 300, "audio": 74, "vision": 47}, {}),
        ({"text": 300, "audio": 74, "vision": 47}, {"rank": 16, "layers": 3, "outputs": 4, "weighted": True}),
        ({"audio": 74, "vision": 47, "pose": 20, "gaze": 8}, {"outputs": 2}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = LMF(dims=dims, **given)
    rank, layers, outputs = given.get("rank", 4), given.get("layers", 2), given.get("outputs", 1)
    expected = outputs + (rank if given.get("weighted") else 0)
    for name, d in dims.items():
        if name == "text":
            expected += 4 * 128 * (d + 128) + 2 * 4 * 128 + 128 * 64 + 64 + rank * 65 * outputs
        else:
            expected += d * 32 + 32 + (layers - 1) * (32 * 32 + 32) + rank * 33 * outputs
    assert sum(p.numel() for p in model.parameters()) == expected


def test_factors_are_a_stage_of_their_own() -> None:
    model = _lmf(rank=5)
    groups = model.modalities("factors")
    shapes = {name: [tuple(p.shape) for p in groups.parameters(name)] for name in groups}
    assert shapes == {"text": [(5, 3, 1)], "audio": [(5, 4, 1)], "vision": [(5, 4, 1)]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 0}, "`rank` and `layers` should be positive. Found `rank = 0`, `layers = 2`"),
        ({"layers": 0}, "Found `rank = 4`, `layers = 0`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _lmf(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(lambda: LMF(dims=DATA_DIMS, hidden=4, text_hidden=4, text_out=4, dropout=0.0), data)
    assert losses[-1] < losses[0]

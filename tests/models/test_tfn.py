from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, make_batch
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor, nn

from equipoise.models import TFN
from equipoise.models.tfn import outer_product


def _tfn(**given: Any) -> Any:
    torch.manual_seed(0)
    return TFN(**{"dims": DIMS, "hidden": 2, "text_hidden": 3, "fusion_hidden": 5, **given}).double().eval()


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_tensor_by_hand() -> None:
    # [2, 1] x [3, 5, 1] x [7, 1]: (2, 1) * 3 * (7, 1), then * 5, then * 1
    vectors = [torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0, 5.0, 1.0]]), torch.tensor([[7.0, 1.0]])]
    assert outer_product(vectors).tolist() == [[42, 6, 70, 10, 14, 2, 21, 3, 35, 5, 7, 1]]


@pytest.mark.parametrize("orders", [None, [1], [2], [3], [1, 2], [1, 2, 3]])
def test_fusion_is_a_network_on_the_products(orders: list[int] | None) -> None:
    model = _tfn(orders=orders, outputs=2)
    generator = torch.Generator().manual_seed(1)
    z = {name: torch.rand(2, width, generator=generator).double() for name, width in model.widths.items()}
    rows = []
    for row in range(2):
        entries = []
        spans = [[*z[name][row].tolist(), None] for name in model.dims]
        for factors in itertools.product(*spans):
            real = [factor for factor in factors if factor is not None]
            if orders is None or len(real) in orders:
                entries.append(math.prod(real))
        rows.append(entries)
    tensor = torch.tensor(rows, dtype=torch.float64)
    hidden = tensor
    for layer in (model.mlp[1], model.mlp[3]):
        hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model.fuse(z).logits, hidden @ model.mlp[5].weight.T + model.mlp[5].bias)


def test_subnetworks_by_hand() -> None:
    model, batch = _tfn(), make_batch()
    features = model(batch).features
    text: Any = model.encoders["text"]
    for row in range(4):
        real = batch.inputs["text"][row][batch.masks["text"][row]]
        _, (last, _) = text.lstm(real)
        expected: Tensor = last[0]
        for layer in (text.mlp[0], text.mlp[3]):
            expected = (layer.weight @ expected + layer.bias).clamp(min=0)
        torch.testing.assert_close(features["text"][row], expected)
        audio = batch.inputs["audio"][row][batch.masks["audio"][row]].mean(dim=0)
        for part in model.encoders["audio"].mlp:
            audio = (part[0].weight @ audio + part[0].bias).clamp(min=0)
        torch.testing.assert_close(features["audio"][row], audio)


def test_without_a_modality_the_products_of_the_others_remain() -> None:
    model = _tfn()
    batch = make_batch().only(["text", "audio"])
    output = model(batch)
    pair = _tfn(dims={name: DIMS[name] for name in ("text", "audio")})
    pair.encoders.load_state_dict({k: v for k, v in model.encoders.state_dict().items() if "vision" not in k})
    weight = model.mlp[1].weight.view(5, 4, 3, 3)[..., -1].flatten(1)  # vision takes its constant alone
    parts = {**model.mlp.state_dict(), "1.weight": weight}
    pair.mlp.load_state_dict(parts)
    torch.testing.assert_close(output.logits, pair(batch).logits)


def test_the_output_range_is_that_of_a_sigmoid() -> None:
    batch = make_batch()
    plain, bounded = _tfn(), _tfn(output_range=[-3, 5])
    torch.testing.assert_close(bounded(batch).logits, -3 + 8 / (1 + (-plain(batch).logits).exp()))
    logits = 1e6 * bounded(batch).logits
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize(
    ("dims", "outputs", "entries"),
    [
        ({"text": 300, "audio": 74, "vision": 47}, 1, 129 * 33 * 33),
        ({"text": 300, "audio": 74}, 1, 129 * 33),
        ({"audio": 74, "vision": 47, "pose": 20}, 5, 33**3),
        ({"vision": 47}, 2, 33),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], outputs: int, entries: int) -> None:
    with torch.device("meta"):
        model = TFN(dims=dims, outputs=outputs)
    expected = entries * 128 + 128 + 128 * 128 + 128 + 128 * outputs + outputs
    for name, d in dims.items():
        if name == "text":
            expected += 4 * 128 * (d + 128) + 2 * 4 * 128 + 2 * (128 * 128 + 128)
        else:
            expected += d * 32 + 32 + 2 * (32 * 32 + 32)
    assert _size(model) == expected


@pytest.mark.parametrize(("orders", "entries"), [(None, 36), ([1], 7), ([2], 16), ([3], 12), ([1, 2], 23)])
def test_ablations_keep_the_products_they_name(orders: list[int] | None, entries: int) -> None:
    # Widths 3, 2, 2. Singles: 7. Pairs: 6 + 6 + 4. Triples: 12. With the constant 36 = 4 * 3 * 3.
    assert _tfn(orders=orders).mlp[1].in_features == entries


def test_only_triples_say_nothing_without_a_modality() -> None:
    logits = _tfn(orders=[3])(make_batch().only(["text", "audio"])).logits
    assert bool((logits == logits[0]).all())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"orders": [4]}, r"`orders` should hold positive numbers, one of them at most 3, .* `orders = \[4\]`"),
        ({"orders": []}, r"Found `orders = \[\]`"),
        ({"orders": [0, 1]}, r"Found `orders = \[0, 1\]`"),
        ({"output_range": (3, -3)}, r"`output_range` should be \(low, high\). Found `output_range = \(3, -3\)`"),
        ({"output_range": (-3, 3), "outputs": 7}, "`output_range` is for one output. Found `outputs = 7`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _tfn(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(
        lambda: TFN(dims=DATA_DIMS, hidden=4, text_hidden=4, fusion_hidden=8, dropout=0.0, output_range=(-3, 3)), data
    )
    assert losses[-1] < losses[0]


def test_what_glomos_table_5_counts_as_tfn_and_c_mib_is_c_mibs_released_code() -> None:
    # Both with GLoMo's own widths of MOSI, 74 and 47, and BERT-base without its pooling layer.
    bert = 108_891_648

    def frame(width: int) -> list[nn.Module]:
        block = nn.TransformerEncoderLayer(width, 5, 4 * width, batch_first=True)
        stack = nn.TransformerEncoder(block, 3, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        convolutions = [nn.Conv1d(features, width, 3, bias=False) for features in (768, 74, 47)]
        return [*convolutions, stack, copy.deepcopy(stack)]

    def bottleneck(width: int) -> list[nn.Module]:
        return [nn.Linear(width, 1024), nn.Linear(1024, width), nn.Linear(1024, width), nn.Linear(width, 1)]

    with torch.device("meta"):
        tensor = [nn.Linear(101**3, 50), nn.Linear(50, 50), nn.Linear(50, 100), nn.Linear(100, 1)]
        tfn = nn.ModuleList([*frame(100), *tensor])
        c_mib = nn.ModuleList([*frame(50), nn.Linear(150, 50), *(part for _ in range(4) for part in bottleneck(50))])
    assert bert + _size(tfn) == 161_409_399
    assert bert + _size(c_mib) == 109_835_748

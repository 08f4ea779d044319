from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, emptied, make_batch
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor

from equipoise.models import PSP
from equipoise.models.psp import positive_pairs

PAIR = {"audio": 3, "vision": 4}
TEN = {"audio": (10,), "vision": (10,)}


def _psp(**given: Any) -> PSP:
    torch.manual_seed(0)
    return PSP(**{"dims": PAIR, "hidden": 4, "classifier_hidden": 8, "dropout": 0.0, **given}).double()


def _clip(model: Any, a: Tensor, v: Tensor, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    """One clip of as many segments in both, one pair at a time: its scores, and both after the exchange."""
    a, v = model.encoders["audio"].lstm(a)[0], model.encoders["vision"].lstm(v)[0]
    weight = {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    steps, width = a.shape
    similar = torch.zeros(steps, steps, dtype=a.dtype)
    for i in range(steps):
        for j in range(steps):
            vi = (weight["keys.vision"] @ v[i]).clamp(min=0)
            aj = (weight["keys.audio"] @ a[j]).clamp(min=0)
            similar[i, j] = (vi @ aj / width**0.5).clamp(min=0)
    finals = {}
    for name, own, other, other_name, rows in (
        ("vision", v, a, "audio", similar),
        ("audio", a, v, "vision", similar.T),
    ):
        result = []
        for i in range(steps):
            shares = rows[i] / rows[i].sum()
            shares = torch.stack([x if x > tau else torch.zeros_like(x) for x in shares])
            shares = shares / shares.sum()
            taken = sum(
                share * (weight[f"values.{other_name}"] @ x).clamp(min=0)
                for share, x in zip(shares, other, strict=True)
            )
            x = (weight[f"outs.{name}"] @ (own[i] + taken)).clamp(min=0)
            x = (x - x.mean()) / (x.var(unbiased=False) + 1e-6).sqrt()
            result.append(x * model.norm.weight + model.norm.bias)
        finals[name] = torch.stack(result)
    hidden = ((finals["audio"] + finals["vision"]) / 2 @ weight["classifier.0"].T).clamp(min=0)
    scores = hidden @ weight["classifier.2"].T
    return scores * (scores @ weight["weight"].T).clamp(min=0).sigmoid(), finals["audio"], finals["vision"]


def test_ten_segments_by_hand() -> None:
    model, batch = _psp(outputs=3).eval(), make_batch(TEN, PAIR)
    output = model(batch)
    encoders: Any = model.encoders
    a, v = (encoders[name].project(batch.inputs[name][0]) for name in ("audio", "vision"))
    scores, final_a, final_v = _clip(model, a, v, tau=0.099)
    torch.testing.assert_close(output.extra["scores"][0], scores)
    torch.testing.assert_close(output.logits[0], scores.mean(dim=0))
    # The pair loss, Eqs. 8 and 9 with every segment in the event.
    cosine = torch.stack([x @ y / (x.norm() * y.norm()) for x, y in zip(final_a, final_v, strict=True)])
    shares = cosine.clamp(min=0) / cosine.clamp(min=0).sum()
    torch.testing.assert_close(output.extra["unevenness"][0], (shares - 0.1).square().mean())
    assert output.extra["unevenness"].item() > 1e-6


def test_pairs_in_numbers() -> None:
    # Shares of 3, 1 and 2: 1/2, 1/6, 1/3, of which an equal share is 1/3.
    queries, keys = torch.ones(1, 1, 1), torch.tensor([[[3.0], [1.0], [2.0], [7.0], [-5.0]]])
    mask = torch.tensor([[True, True, True, False, False]])
    kept: dict[float, list[float]] = {0.99: [0.6, 0, 0.4], 1.01: [1, 0, 0], 0.0: [1 / 2, 1 / 6, 1 / 3], 1.6: [0, 0, 0]}
    for threshold, expected in kept.items():
        weights = positive_pairs(queries, keys, mask, threshold)
        torch.testing.assert_close(weights, torch.tensor([[[*expected, 0.0, 0.0]]]))
    opposite = positive_pairs(-queries, keys[:, :3], mask[:, :3], 0.99)
    assert torch.equal(opposite, torch.zeros(1, 1, 3))  # nothing resembles it: nothing is taken, and nothing is NaN
    nobody = positive_pairs(queries, keys, torch.zeros_like(mask), 0.99)
    assert torch.equal(nobody, torch.zeros(1, 1, 5))


def test_a_modality_of_fewer_segments_is_brought_to_the_steps_of_the_other() -> None:
    model = _psp(outputs=2, weighted=False, threshold=0)
    batch = make_batch({"audio": (2,), "vision": (4,)}, PAIR)
    output = model(batch)
    streams = model._propagated(model.encode(batch))
    a, v = streams["audio"].values[0], streams["vision"].values[0]
    fused = (torch.stack([a[0], a[0], a[1], a[1]]) + v) / 2
    torch.testing.assert_close(output.logits[0], model.classifier(fused).mean(dim=0))
    assert output.extra["scores"].shape == (1, 4, 2)


def test_what_is_missing_is_left_out_of_the_mean() -> None:
    model, batch = _psp(dims=DIMS, outputs=2), make_batch()
    alone = model(batch.only(["audio"]))
    only = _psp(dims={"audio": 3}, outputs=2)  # a model of audio has nothing to compare
    own = {name: x for name, x in model.state_dict().items() if name in only.state_dict()}
    only.load_state_dict(own)
    torch.testing.assert_close(alone.logits, only(batch).logits)
    assert not [name for name, _ in only.named_parameters() if name.startswith(("keys", "values"))]


def test_the_pair_loss_is_the_mean_over_samples_with_a_pair() -> None:
    model, batch = _psp(dims=DIMS, lambda_pair=100.0), make_batch()
    output = model(batch)
    torch.testing.assert_close(model.losses(output, batch)["pair"], 100 * output.extra["unevenness"].mean())
    mixed = emptied(batch, ["audio", "vision"], kept=[0, 1])
    output = model(mixed)
    assert bool((output.extra["unevenness"][2:] == 0).all())
    torch.testing.assert_close(model.losses(output, mixed)["pair"], 100 * output.extra["unevenness"].sum() / 2)
    text = batch.only(["text"])
    assert model.losses(model(text), text)["pair"].item() == 0.0
    assert _psp().losses(output, mixed) == {}


def _attended(layer: Any, maps: Tensor, guide: Tensor) -> Tensor:
    """A segment's positions, one by one, ``[P, C]`` and ``[g]`` to ``[C]``."""
    told = layer.guide_map.weight @ (layer.guide.weight @ guide + layer.guide.bias).clamp(min=0)
    scores = []
    for p, vector in enumerate(maps):
        content = layer.own_map.weight @ (layer.own.weight @ vector + layer.own.bias).clamp(min=0) + told[p]
        scores.append(layer.score.weight[0] @ content.tanh())
    weights = torch.stack(scores).exp()
    return (weights / weights.sum()) @ maps


def test_a_map_is_attended_to_with_the_ears_of_audio() -> None:
    lengths, dims = {"audio": (3, 4), "vision": (3, 4)}, {"audio": 3, "vision": 6}
    model, batch = _psp(dims=dims, outputs=2, maps={"vision": 2}), make_batch(lengths, dims)
    encoders: Any = model.encoders
    guide = encoders["audio"].project(batch.inputs["audio"])
    vectors = torch.zeros(2, 4, 2, dtype=torch.float64)
    for row, length in enumerate(lengths["vision"]):
        for t in range(length):
            maps = batch.inputs["vision"][row, t].reshape(3, 2)
            vectors[row, t] = _attended(encoders["vision"].attention, maps, guide[row, t])
    plain = _psp(dims={"audio": 3, "vision": 2}, outputs=2)
    plain.load_state_dict(model.state_dict() | plain.normaliser.state_dict(prefix="normaliser."), strict=False)
    expected = plain(replace(batch, inputs={**batch.inputs, "vision": vectors}))
    torch.testing.assert_close(model(batch).logits, expected.logits)
    torch.testing.assert_close(model(batch).features["vision"], expected.features["vision"])
    deaf = model(batch.only(["vision"])).features["vision"]
    assert not torch.allclose(deaf, expected.features["vision"])


@pytest.mark.parametrize(
    ("dims", "given"),
    [({"audio": 128, "vision": 512}, {"outputs": 28}), ({"text": 768, "audio": 74, "vision": 47}, {"weighted": False})],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = PSP(dims=dims, **given)
    outputs = given.get("outputs", 1)
    expected = 2 * 256 + 256 * 64 + 64 * outputs + (outputs if given.get("weighted", True) else 0)
    for d in dims.values():
        expected += d * 256 + 256 * 128 + 2 * 4 * (128 * 128 + 128 * 128 + 2 * 128) + 3 * 256 * 256
    assert sum(p.numel() for p in model.parameters()) == expected


def test_parameters_of_the_attention_over_a_map() -> None:
    vectors, maps = {"audio": 128, "vision": 512}, {"audio": 128, "vision": 49 * 512}
    with torch.device("meta"):
        plain = sum(p.numel() for p in PSP(dims=vectors).parameters())
        guided = sum(p.numel() for p in PSP(dims=maps, maps={"vision": 512}).parameters())
    assert guided - plain == (512 * 512 + 512) + (128 * 512 + 512) + 2 * 512 * 49 + 49


@pytest.mark.parametrize("maps", [{"pose": 2}, {"vision": 3}, {"vision": 0}])
def test_maps_that_do_not_fit_are_refused(maps: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"`maps` should name modalities and a number of channels .* Found '\w+': \d"):
        _psp(maps=maps)


@pytest.mark.parametrize("name", ["threshold", "lambda_pair"])
def test_what_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` should be non-negative. Found `{name} = -1`"):
        _psp(**{name: -1})


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data", task="classification")
    losses = epoch_losses(
        lambda: PSP(dims=DATA_DIMS, outputs=3, hidden=4, classifier_hidden=8, dropout=0.0, lambda_pair=1.0), data
    )
    assert losses[-1] < losses[0]

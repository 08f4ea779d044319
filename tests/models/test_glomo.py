from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.layers.tiny_bert import save_tiny_bert
from tests.models.bert_base import BertBase
from tests.models.builders import DIMS, Lookup, make_batch, with_tokens
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.data.synthetic import synthetic
from equipoise.layers import TextEncoder, VectorMoE, masked_max, selection_probability
from equipoise.models import GLoMo, Output
from equipoise.training.loop import fit


def _glomo(**given: Any) -> GLoMo:
    torch.manual_seed(0)
    small = {"dims": DIMS, "hidden": 8, "heads": 2, "layers": 1, "feed_forward": 16}
    return GLoMo(**{**small, **given}).double()


def test_the_parameters_on_mosi_are_the_papers_to_the_last() -> None:
    with torch.device("meta"):
        model = GLoMo(dims={"text": 768, "audio": 74, "vision": 47}, text_encoder=BertBase())
    d, f = 48, 2048
    bert = 108_891_648
    text = (768 * d + d) + 768 * d * 3
    layer = 12 * d * d + 13 * d  # attention 4 d² + 4 d, feed-forward 8 d² + 5 d, two norms 4 d
    streams = (74 + 47) * d * 3 + 2 * (4 * layer + 2 * d)
    experts = 3 * (3 * (3 * d * d + d + d * d + d) + 2 * 3 * d * 3)
    mlps = 4 * (2 * d * d + d)
    attentions = 2 * (3 * d * d + d + 3 * d + 3)
    fusion = 2 * (4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d)
    found = sum(p.numel() for p in model.parameters())
    assert found == bert + text + streams + experts + mlps + attentions + fusion + (2 * d + 1)
    assert found == 109_818_887  # Table 5


def test_the_defaults_are_the_papers() -> None:
    defaults = {name: p.default for name, p in inspect.signature(GLoMo).parameters.items()}
    paper = {"hidden": 48, "layers": 4, "pieces": 3, "experts": 3, "top_k": 2, "moe_weight": 1e-2, "combine": "sum"}
    assert {name: defaults[name] for name in paper} == paper


def test_pooling_by_hand() -> None:
    # Real frames 4, 1, 3, 2, 5 in two windows of three, which share the middle; 9 is padding.
    values = torch.tensor([[4.0, 9, 1, 3, 2, 5, 9]]).unsqueeze(-1)
    mask = torch.tensor([[True, False, True, True, True, True, False]])
    assert masked_max(values, mask, 2).flatten().tolist() == [4.0, 5.0]
    assert masked_max(values, mask, 3).flatten().tolist() == [4.0, 3.0, 5.0]  # frames 0-1, 1-3, 3-4
    one = torch.tensor([[False, False, True, False, False, False, False]])
    assert masked_max(values, one, 3).flatten().tolist() == [1.0, 1.0, 1.0]
    assert masked_max(-values, ~mask & mask, 3).flatten().tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
def test_pooling_of_unpadded_frames_is_torchs(length: int, pieces: int) -> None:
    values = torch.randn(2, length, 3)
    expected = nn.functional.adaptive_max_pool1d(values.transpose(1, 2), pieces).transpose(1, 2)
    assert torch.equal(masked_max(values, torch.ones(2, length, dtype=torch.bool), pieces), expected)


def _fixed_experts(combine: str) -> Any:
    """Experts that say 1, 2 and 4 whatever they read, and a gate whose logits are the input."""
    moe: Any = VectorMoE(3, 1, combine=combine)  # type: ignore[arg-type]
    with torch.no_grad():
        moe.gate.weight.copy_(torch.eye(3))
        for expert, value in zip(moe.experts, (1.0, 2.0, 4.0), strict=True):
            for p in expert.parameters():
                p.zero_()
            expert[-1].bias.fill_(value)
    moe.eval()
    return moe


def test_experts_by_hand() -> None:
    x = torch.tensor([[math.log(3.0), -5.0, 0.0]])  # the first and the third are chosen, with 3/4 and 1/4
    mixed, gates, load = _fixed_experts("sum")(x)
    torch.testing.assert_close(gates, torch.tensor([[0.75, 0.0, 0.25]]))
    assert load.tolist() == [[1.0, 0.0, 1.0]]
    assert mixed.item() == pytest.approx(0.75 * 1 + 0.25 * 4)
    released = _fixed_experts("logsumexp")(x).mixed
    assert released.item() == pytest.approx(math.log(0.75 * math.exp(1) + 0.25 * math.exp(4)), rel=1e-6)


def test_the_load_is_how_often_an_expert_would_be_chosen() -> None:
    torch.manual_seed(0)
    clean, spread = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.2
    noisy = clean + torch.randn(4, dtype=torch.float64) * spread
    found = selection_probability(clean, noisy, spread, 2)
    for i in range(4):
        drawn = clean[i] + torch.randn(200_000, dtype=torch.float64) * spread[i]
        others = sorted((noisy[j].item() for j in range(4) if j != i), reverse=True)
        assert found[i].item() == pytest.approx((drawn > others[1]).double().mean().item(), abs=0.005)
    assert selection_probability(clean, noisy, spread, 4).tolist() == [1.0] * 4


def _cv2(x: list[float]) -> float:
    mean = sum(x) / len(x)
    return sum((v - mean) ** 2 for v in x) / len(x) / mean**2


def test_the_loss_by_value() -> None:
    gates = torch.tensor([[0.75, 0.0, 0.25], [0.5, 0.5, 0.0]])
    load = torch.tensor([[0.9, 0.2, 0.6], [0.8, 0.7, 0.1]])
    output = Output(torch.zeros(2), None, {}, {"gates/audio": gates, "load/audio": load})
    found = _glomo(moe_weight=0.5).losses(output, make_batch())
    assert list(found) == ["moe/audio"]
    expected = 0.5 * (_cv2([1.25, 0.5, 0.25]) + _cv2([1.7, 0.9, 0.7]))
    assert found["moe/audio"].item() == pytest.approx(expected, rel=1e-6)


def test_the_losses_teach_the_gates_alone() -> None:
    model = _glomo(dropout=0.0).train()
    losses = model.losses(model(batch := make_batch()), batch)
    assert list(losses) == ["moe/text", "moe/audio", "moe/vision"]
    torch.autograd.backward(list(losses.values()))
    taught = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert {f"encoders.{m}.mixer.{part}.weight" for m in DIMS for part in ("gate", "noise")} <= taught
    assert not any(".experts." in name or name.startswith(("fusion", "head")) for name in taught)


def test_a_sample_that_lacks_a_modality_loads_none_of_its_experts() -> None:
    model, batch = _glomo().train(), make_batch()
    batch.masks["audio"][1:3] = False
    extra = model(batch).extra
    for what in ("gates", "load"):
        assert not bool(extra[f"{what}/audio"][1:3].any())
        assert bool(extra[f"{what}/audio"][0].any())


def _attend(attention: Any, x: list[Tensor]) -> tuple[Tensor, Tensor]:
    scores = attention.score(attention.hidden(torch.cat(x)).clamp(min=0)) / math.sqrt(len(x[0]))
    weights = torch.exp(scores) / torch.exp(scores).sum()
    return weights, sum((w * v for w, v in zip(weights, x, strict=True)), torch.zeros_like(x[0]))


def _refined(model: Any, wholes: list[Tensor], locals_: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    tokens = torch.stack([*wholes, *locals_]).unsqueeze(0)
    for block in model.fusion.blocks:
        tokens = block(tokens)
    return list(tokens[0, : len(wholes)]), list(tokens[0, len(wholes) :])


@pytest.mark.parametrize("guide", ["global", "local", "attention", "mlp"])
def test_the_guided_fusion_derived_again(guide: str) -> None:
    model: Any = _glomo(guide=guide, outputs=2).eval()
    encoded = model.encode(make_batch())
    logits = model.fuse(encoded).logits
    for row in range(4):
        z_g, z_l = _refined(model, [encoded[m].whole[row] for m in DIMS], [encoded[m].local[row] for m in DIMS])
        own = [linear(torch.cat([g, x])) for linear, g, x in zip(model.fusion.own, z_g, z_l, strict=True)]
        (w_g, whole), (w_l, local) = (_attend(a, z) for a, z in zip(model.fusion.attentions, (z_g, z_l), strict=True))
        z_1 = model.fusion.merge(torch.cat([whole, local]))
        if guide == "mlp":
            z_2 = model.fusion.guiding(torch.cat(own))
        elif guide == "attention":
            z_2 = _attend(model.fusion.guiding, own)[1]
        else:
            w = w_g if guide == "global" else w_l
            z_2 = w[0] * own[0] + w[1] * own[1] + w[2] * own[2]
        torch.testing.assert_close(logits[row], model.head(torch.cat([z_1, z_2])))


COMBINE: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "sum": lambda x: x[0] + x[1] + x[2] + x[3] + x[4] + x[5],
    "multiply": lambda x: x[0] * x[1] * x[2] * x[3] * x[4] * x[5],
    "concat": torch.cat,
}


@pytest.mark.parametrize("fusion", ["sum", "multiply", "concat", "attention"])
def test_plain_fusions_derived_again(fusion: str) -> None:
    model: Any = _glomo(fusion=fusion).eval()
    encoded = model.encode(make_batch())
    logits = model.fuse(encoded).logits
    for row in range(4):
        six = [encoded[m].whole[row] for m in DIMS] + [encoded[m].local[row] for m in DIMS]
        fused = _attend(model.fusion.attention, six)[1] if fusion == "attention" else COMBINE[fusion](six)
        torch.testing.assert_close(logits[row], model.head(fused).squeeze(-1))


def test_a_missing_modality_leaves_the_other_factors_of_a_product() -> None:
    model: Any = _glomo(fusion="multiply").eval()
    encoded = model.encode(batch := make_batch().only(["text", "vision"]))
    product = encoded["text"].whole * encoded["vision"].whole * encoded["text"].local * encoded["vision"].local
    torch.testing.assert_close(model(batch).logits, model.head(product).squeeze(-1))


def test_encoders_derived_again() -> None:
    model: Any = _glomo(moe=False).eval()
    batch = make_batch()
    encoded = model.encode(batch)
    for row in range(4):
        text = batch.inputs["text"][row][batch.masks["text"][row]]
        trunk = model.encoders["text"].trunk
        torch.testing.assert_close(encoded["text"].whole[row], trunk.linear(text.mean(dim=0)))
        frames = trunk.conv(text.T.unsqueeze(0))
        pieces = nn.functional.adaptive_max_pool1d(frames, 3)[0].T.flatten()
        torch.testing.assert_close(encoded["text"].local[row], model.encoders["text"].mixer(pieces))
        audio = batch.inputs["audio"][row][batch.masks["audio"][row]]
        trunk = model.encoders["audio"].trunk
        stream = trunk.conv(audio.T.unsqueeze(0)).transpose(1, 2) * math.sqrt(8)
        angles = [[t / 10_000 ** (2 * i / 8) for i in range(4)] for t in range(len(audio))]
        waves = [[f(a) for a in at for f in (math.sin, math.cos)] for at in angles]
        stream = stream + torch.tensor(waves, dtype=torch.float64)
        stream = trunk.norm(trunk.blocks[0](stream))[0]
        torch.testing.assert_close(encoded["audio"].whole[row], stream.amax(dim=0), atol=1e-6, rtol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


def test_text_is_read_from_the_last_two_layers_of_bert(folder: Path) -> None:
    from transformers import BertModel

    bert = TextEncoder(folder)
    model: Any = _glomo(text_encoder=bert, moe=False).eval()
    batch = with_tokens(make_batch())
    encoded = model.encode(batch)["text"]
    reference: Any = BertModel.from_pretrained(folder)
    reference.double().eval()
    for row in range(4):
        length = int(batch.masks["text"][row].sum())
        states = reference(batch.inputs["text"][row : row + 1, :length], output_hidden_states=True).hidden_states
        torch.testing.assert_close(encoded.whole[row], model.encoders["text"].trunk.linear(states[-1][0, 0]))
        both = torch.cat([model.encoders["text"].trunk.conv(s.transpose(1, 2)) for s in (states[-1], states[-2])], 2)
        pieces = nn.functional.adaptive_max_pool1d(both, 3)[0].T.flatten()
        torch.testing.assert_close(encoded.local[row], model.encoders["text"].mixer(pieces))
    model(batch).logits.sum().backward()
    assert all(p.grad is not None for name, p in bert.named_parameters())


def test_an_encoder_of_one_layer_will_do() -> None:
    model = _glomo(text_encoder=Lookup())
    assert model(with_tokens(make_batch())).logits.shape == (4,)


@pytest.mark.parametrize(
    ("given", "mixers"),
    [({}, VectorMoE), ({"moe": False}, nn.Linear), ({"representations": "global"}, type(None))],
)
def test_switches_of_the_experts(given: dict[str, Any], mixers: type) -> None:
    model: Any = _glomo(**given)
    assert [type(encoder.mixer) for encoder in model.encoders.values()] == [mixers] * 3
    output = model.train()(batch := make_batch())
    assert len(model.losses(output, batch)) == (3 if given == {} else 0)


@pytest.mark.parametrize(("kind", "width"), [("both", 16), ("global", 8), ("local", 8)])
def test_representations_alone(kind: str, width: int) -> None:
    model: Any = _glomo(representations=kind)
    assert {x.shape for x in model(make_batch()).features.values()} == {(4, width)}
    assert len(model.fusion.attentions) == (2 if kind == "both" else 1)


def test_evaluation_without_gradients_says_the_same() -> None:
    model, batch = _glomo().float().eval(), make_batch(pad=3, dtype=torch.float32)
    with torch.no_grad():  # torch takes another path through its transformer layers here
        found = model(batch).logits
    torch.testing.assert_close(found, model(batch).logits, atol=1e-6, rtol=1e-6)


def test_five_modalities() -> None:
    dims = {"text": 4, "audio": 3, "vision": 2, "pose": 5, "gaze": 2}
    model = _glomo(dims=dims)
    model(make_batch(dict.fromkeys(dims, (3, 1)), dims)).logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None and "noise" not in name] == []


def test_one_epoch_of_training(tmp_path: Path) -> None:
    dataset = synthetic(tmp_path / "data", n=60, dims=DIMS | {"audio": 4}, lengths=dict.fromkeys(DIMS, (2, 5)))
    torch.manual_seed(0)
    model = GLoMo(dims=DIMS | {"audio": 4}, hidden=8, heads=2, layers=1, feed_forward=16, dropout=0.0, moe_weight=0.1)
    train = dataset.split("train")

    def total(batch: Batch) -> float:
        with torch.no_grad():
            output = model.train()(batch)
            own = sum(float(x) for x in model.losses(output, batch).values())
            return float((output.logits - batch.target).abs().mean()) + own

    before = total(train.batch(range(len(train))))
    fit(model, train=train, valid=dataset.split("valid"), epochs=1, batch_size=6, lr=3e-3, loss="l1")
    after = total(train.batch(range(len(train))))
    assert math.isfinite(after)
    assert after < before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"representations": "some"}, "`representations` should be one of both, global, local. Found"),
        ({"fusion": "stack"}, "`fusion` should be one of guided, sum"),
        ({"guide": "text"}, "`guide` should be one of global, local"),
        ({"guide": "mlp", "fusion": "sum"}, "`guide` needs `fusion = \"guided\"`. Found `fusion = 'sum'`"),
        ({"guide": "local", "representations": "global"}, "needs local representations"),
        ({"heads": 3}, "`heads` should divide `hidden = 8`. Found `heads = 3`"),
        ({"pieces": 0}, "Found `pieces = 0`, `moe_weight = 0.01`"),
        ({"top_k": 4}, "`top_k` should be in 1 to `experts = 3`. Found `top_k = 4`"),
        ({"combine": "max"}, '`combine` should be "sum" or "logsumexp"'),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _glomo(**given)


def test_each_modality_may_have_experts_of_its_own() -> None:
    """Fig. 3b: s of each modality; a gate with fewer experts than k keeps all of its own."""
    model = GLoMo(
        dims={"text": 4, "audio": 3}, hidden=4, heads=2, layers=1, feed_forward=8, experts={"text": 4, "audio": 1}
    )
    counts = {name: len(encoder.mixer.experts) for name, encoder in model.encoders.items()}  # type: ignore[arg-type, union-attr]
    assert counts == {"text": 4, "audio": 1}
    with pytest.raises(ValueError, match=r"`experts` should name every modality. Found none for 'audio'"):
        GLoMo(dims={"text": 4, "audio": 3}, hidden=4, heads=2, experts={"text": 4})

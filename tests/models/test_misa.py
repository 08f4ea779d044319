from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.bert_base import BertBase
from tests.models.builders import DIMS, LENGTHS, emptied, make_batch, rows
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.models import MISA, Output

NAMES = ("similarity", "difference", "reconstruction")


def _misa(**given: Any) -> Any:
    torch.manual_seed(0)
    return MISA(**{"dims": DIMS, "hidden": 8, "feed_forward": 16, **given}).double().eval()


@pytest.mark.parametrize(("audio", "vision", "count"), [(5, 20, 110_620_273), (74, 47, 110_963_281)])
def test_parameters_on_mosi(audio: int, vision: int, count: int) -> None:
    with torch.device("meta"):
        model = MISA(dims={"text": 768, "audio": audio, "vision": vision}, text_encoder=BertBase(pooled=True))
    d, f, bert = 128, 2048, 109_482_240
    lstms = sum(2 * (8 * w * w + 8 * w) + 4 * w + 2 * (12 * w * w + 8 * w) for w in (audio, vision))
    projections = (768 + 4 * (audio + vision)) * d + 3 * (d + 2 * d)
    subspaces = 7 * (d * d + d)  # three private, one shared, three decoders
    transformer = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
    mlp = 6 * d * 3 * d + 3 * d + 3 * d + 1
    found = sum(p.numel() for p in model.parameters())
    assert found == bert + lstms + projections + subspaces + transformer + mlp
    # The released code also holds a layer norm for text, 2 * (2 * 768), and a discriminator into four classes; nothing
    # reads either. With them the first is the number in GLoMo's Table 5.
    assert found + 2 * 2 * 768 + 4 * d + 4 == count


def test_utterances_derived_again() -> None:
    model, batch = _misa(recurrent_text=True), make_batch()
    encoded = model.encode(batch)
    for name in DIMS:
        parts: Any = model.encoders[name]
        for row in range(4):
            frames = batch.inputs[name][row][batch.masks[name][row]]
            low, (first, _) = parts.first(frames)
            _, (second, _) = parts.second(parts.norm(low))
            utterance = torch.cat([first[0], first[1], second[0], second[1]])
            linear, norm = parts.project[0], parts.project[2]
            expected = norm((linear.weight @ utterance + linear.bias).clamp(min=0))
            torch.testing.assert_close(encoded[name].projected[row], expected)
            private = 1 / (1 + torch.exp(-model.private[name](expected)))
            torch.testing.assert_close(encoded[name].private[row], private)
            torch.testing.assert_close(encoded[name].shared[row], 1 / (1 + torch.exp(-model.shared(expected))))


def test_text_is_averaged() -> None:
    model, batch = _misa(), make_batch()
    projected = model.encode(batch)["text"].projected
    for row in range(4):
        mean = batch.inputs["text"][row][batch.masks["text"][row]].mean(dim=0)
        torch.testing.assert_close(projected[row], model.encoders["text"].project(mean))


def _transformer(layer: Any, x: Tensor, heads: int) -> Tensor:
    """A post-norm layer over ``[n, d]``, from its definition."""
    d = x.shape[1]
    q, k, v = (x @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).split(d, dim=1)
    out = []
    for head in range(heads):
        part = slice(head * d // heads, (head + 1) * d // heads)
        scores = torch.exp(q[:, part] @ k[:, part].T / math.sqrt(d / heads))
        out.append(scores / scores.sum(dim=1, keepdim=True) @ v[:, part])
    x = layer.norm1(x + layer.self_attn.out_proj(torch.cat(out, dim=1)))
    refined: Tensor = layer.norm2(x + layer.linear2(layer.linear1(x).clamp(min=0)))
    return refined


@pytest.mark.parametrize("kept", [["text", "audio", "vision"], ["text", "vision"], ["audio"]])
def test_fusion_derived_again(kept: list[str]) -> None:
    model, batch = _misa(outputs=3), make_batch().only(kept)
    encoded = model.encode(batch)
    logits = model.fuse(encoded).logits
    slots = [(name, kind) for kind in ("private", "shared") for name in DIMS]
    for row in range(4):
        tokens = torch.stack([getattr(encoded[name], kind)[row] for name, kind in slots if name in kept])
        fused = iter(_transformer(model.transformer, tokens, 2))
        joined = torch.cat([next(fused) if name in kept else torch.zeros(8).double() for name, _ in slots])
        expected = model.mlp[3](model.mlp[0](joined).clamp(min=0))
        torch.testing.assert_close(logits[row], expected)


def test_evaluation_without_gradients_says_the_same() -> None:
    model, batch = _misa().float(), emptied(make_batch(pad=3, dtype=torch.float32), ["audio"], kept=[1])
    with torch.no_grad():  # torch takes another path through its transformer layer here
        found = model(batch).logits
    torch.testing.assert_close(found, model(batch).logits, atol=1e-6, rtol=1e-6)


def _example() -> tuple[MISA, Output, Batch]:
    """Two modalities, two wide; of three samples the last lacks audio."""
    dims = {"text": 2, "audio": 2}
    model = _misa(dims=dims, hidden=2, heads=1)
    batch = make_batch({"text": (1, 1, 1), "audio": (1, 1, 0)}, dims)
    text, audio = torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.9, 0.1]]), torch.tensor([[0.5, 0.0], [0.5, 1.0], [0, 0]])
    own = {
        "text": torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]),
        "audio": torch.tensor([[0.0, 0], [0, 1], [0, 0]]),
    }
    extra = {"text_shared": text, "audio_shared": audio, "text_projected": text + 1, "audio_projected": audio - 1}
    features = {name: x.double() for name, x in own.items()}
    return model, Output(torch.zeros(3), None, features, {name: x.double() for name, x in extra.items()}), batch


def test_losses_by_hand() -> None:
    model, output, batch = _example()
    with torch.no_grad():
        for decoder in model.decoders.values():
            nn.init.zeros_(decoder.weight)  # type: ignore[arg-type]
            nn.init.constant_(decoder.bias, 0.5)  # type: ignore[arg-type]
    found = model.losses(output, batch)
    assert tuple(found) == NAMES
    # Shared, first two samples: both have mean (.5, .5), deviations ∓.25 and 0 against 0 and ∓.5. Odd moments are 0,
    # the even ones (.25², 0) against (0, .5²), and (.25⁴, 0) against (0, .5⁴).
    similarity = math.hypot(0.25**2, 0.5**2) + math.hypot(0.25**4, 0.5**4)
    assert found["similarity"].item() == pytest.approx(similarity)
    # Private and shared text of all three, centred, each row of length 1; audio, and the two privates, of two rows.
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    y = output.extra["text_shared"] - output.extra["text_shared"].mean(dim=0)
    text = (x.double().T @ (y / y.norm(dim=1, keepdim=True))).square().sum()
    # Audio: (0, ∓1) in both, so that a single entry is 2; of the privates (∓1, 0) and (0, ∓1): the same.
    assert found["difference"].item() == pytest.approx(0.3 / 4 * (text.item() + 4 + 4))
    original = output.extra["text_projected"]
    text_error = ((original - 0.5) ** 2).sum() / 6
    audio_error = ((output.extra["audio_projected"][:2] - 0.5) ** 2).sum() / 4
    assert found["reconstruction"].item() == pytest.approx((text_error + audio_error).item() / 2)


def test_a_sample_that_lacks_a_modality_changes_no_loss_of_it() -> None:
    model, batch = _misa(), emptied(make_batch(), ["audio", "vision"], kept=[0, 1, 2])
    output = model(batch)
    whole, part = model.losses(output, batch), model.losses(model(rows(batch, [0, 1, 2])), rows(batch, [0, 1, 2]))
    torch.testing.assert_close(whole["similarity"], part["similarity"])
    assert not torch.allclose(whole["reconstruction"], part["reconstruction"])  # the fourth text is reconstructed


@pytest.mark.parametrize("adversarial", [False, True])
def test_one_sample_and_one_modality(adversarial: bool) -> None:
    model, batch = _misa(adversarial=adversarial), make_batch()
    for given in (rows(batch, [0]), batch.only(["audio"]), emptied(batch, ["text", "vision"], kept=[1])):
        losses = model.losses(model(given), given)
        torch.autograd.backward(list(losses.values()))
        assert all(bool(x.isfinite()) for x in losses.values())
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    alone = _misa(dims={"audio": 3}, adversarial=adversarial)
    assert alone.discriminator is None
    assert tuple(alone.losses(alone(batch), batch)) == NAMES[1:]
    silent = emptied(batch, DIMS)
    assert model.losses(model(silent), silent) == {}


def test_the_discriminator_learns_and_the_encoders_deceive_it() -> None:
    model, batch = _misa(adversarial=True, lambda_sim=0.5), make_batch()
    shared = {name: part.shared for name, part in model.encode(batch).items()}
    guesses = torch.cat([model.discriminator(x) for x in shared.values()]).log_softmax(dim=1)
    expected = -torch.stack([guesses[4 * i + row, i] for i in range(3) for row in range(4)]).mean() / 2
    theirs, ours = ([p for n, p in model.named_parameters() if n.startswith(part)] for part in ("discr", "shared"))
    plain = torch.autograd.grad(expected, theirs + ours)
    found = model.losses(model(batch), batch)["similarity"]
    torch.testing.assert_close(found, expected)
    turned = torch.autograd.grad(found, theirs + ours)
    for one, other in zip(turned[: len(theirs)], plain[: len(theirs)], strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(turned[len(theirs) :], plain[len(theirs) :], strict=True):
        assert bool(other.any())
        torch.testing.assert_close(one, -other)


@pytest.mark.parametrize("name", NAMES)
def test_each_loss_teaches_what_it_names(name: str) -> None:
    weights = dict(zip(NAMES, ("lambda_sim", "lambda_diff", "lambda_recon"), strict=True))
    model = _misa(**{weight: float(key == name) for key, weight in weights.items()})
    batch = make_batch({m: tuple(n + 2 for n in lengths) for m, lengths in LENGTHS.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    values = []
    for _ in range(25):
        losses = model.losses(model(batch), batch)
        assert list(losses) == [name]
        values.append(losses[name].item())
        optimizer.zero_grad()
        losses[name].backward()
        optimizer.step()
    assert values[-1] < 0.6 * values[0]


def test_what_has_no_weight_has_no_parameters() -> None:
    model = _misa(adversarial=True, lambda_sim=0, lambda_recon=0)
    assert model.discriminator is None
    assert len(model.decoders) == 0
    assert list(model.losses(model(make_batch()), make_batch())) == ["difference"]


def test_the_encoder_of_all_is_in_no_group() -> None:
    model = _misa(adversarial=True)
    groups = model.modalities()
    own = {id(p) for name in groups for p in groups.parameters(name)}
    left = {name.split(".")[0] for name, p in model.named_parameters() if id(p) not in own}
    assert left == {"shared", "transformer", "mlp", "decoders", "discriminator"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lambda_sim": -1}, "`lambda_sim` should be non-negative. Found `lambda_sim = -1`"),
        ({"lambda_diff": -0.1}, "`lambda_diff` should be non-negative. Found `lambda_diff = -0.1`"),
        ({"lambda_recon": -2}, "`lambda_recon` should be non-negative"),
        ({"heads": 3}, "`heads` should divide `hidden = 8`. Found `heads = 3`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _misa(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(
        lambda: MISA(dims=DATA_DIMS, hidden=8, feed_forward=16, dropout=0.0, transformer_dropout=0.0), data, lr=0.01
    )
    assert losses[-1] < losses[0]

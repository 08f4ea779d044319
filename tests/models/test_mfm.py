from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, Lookup, emptied, make_batch, rows, with_tokens
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor

from equipoise.functional import prior_mmd
from equipoise.models import MFM, MFN
from equipoise.models._mfm import Decoder

SMALL: dict[str, Any] = {
    "hidden": 4,
    "memory": 5,
    "network_hidden": 6,
    "latent": {"text": 3, "audio": 2, "vision": 4},
    "factor": 5,
    "shared_latent": 6,
    "shared_factor": 7,
}


def _mfm(**given: Any) -> Any:
    torch.manual_seed(0)
    return MFM(**{"dims": DIMS, **SMALL, **given}).double().eval()


def _linear(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer.weight @ x + layer.bias
    return out


def _factor(network: Any, z: Tensor) -> Tensor:
    return _linear(network[3], _linear(network[0], z).clamp(min=0)).clamp(min=0)


def _unroll(decoder: Any, start: Tensor, steps: int) -> Tensor:
    h = c = torch.zeros(1, len(start)).double()
    given, frames = start.unsqueeze(0), []
    for _ in range(steps):
        h, c = decoder.cell(given, (h, c))
        frames.append(_linear(decoder.frame, h[0]))
        given = h
    return torch.stack(frames)


def test_the_decoder_reads_its_own_output() -> None:
    torch.manual_seed(0)
    decoder, start = Decoder(4, 3).double(), torch.randn(2, 4).double()
    for steps in (1, 2, 6):
        found = decoder(start, steps)
        for row in range(2):
            torch.testing.assert_close(found[row], _unroll(decoder, start[row], steps))


def test_the_shared_factor_predicts() -> None:
    model, batch = _mfm(outputs=3), make_batch()
    torch.manual_seed(0)
    hidden = dict.fromkeys(("attention_hidden", "proposal_hidden", "retain_hidden", "update_hidden"), 6)
    mfn = MFN(dims=DIMS, hidden=4, memory=5, **hidden).double().eval()  # type: ignore[arg-type]
    mfn.load_state_dict(
        {n: p for n, p in model.state_dict().items() if n.startswith(("encoders", "fusion", "norm"))}, strict=False
    )
    output, discriminative = model(batch), mfn(batch)
    for row in range(4):
        parts = [discriminative.features[m][row] for m in DIMS] + [discriminative.extra["memory"][row]]
        z = _linear(model.latent, torch.cat(parts))
        f = _factor(model.factor, z)
        torch.testing.assert_close(output.extra["latent"][row], z)
        torch.testing.assert_close(output.extra["factor"][row], f)
        expected = _linear(model.mlp[2], _linear(model.mlp[0], f).clamp(min=0))
        torch.testing.assert_close(output.logits[row], expected)


@torch.no_grad()
@pytest.mark.parametrize("specific", [True, False])
def test_the_losses_derived_again(specific: bool) -> None:
    weights = {"text": 2.0, "audio": 0.5, "vision": 3.0}
    model = _mfm(lambda_recon=weights, lambda_mmd=0.7, specific=specific)
    batch = emptied(make_batch(pad=2), ["audio"], kept=[0, 3])
    output = model(batch)
    guesses, found = model.reconstruct(output, batch), model.losses(output, batch)
    errors, codes = 0.0, [output.extra["latent"]]
    for name, part in model.generative.items():
        squares, seen = 0.0, []
        real = 0
        for row in range(4):
            frames = batch.inputs[name][row][batch.masks[name][row]]
            start = output.extra["factor"][row]
            if specific:
                z = torch.zeros(SMALL["latent"][name]).double()
                if len(frames):
                    z = _linear(part.latent, part.lstm(frames)[0][-1])
                    seen.append(z)
                start = torch.cat([start, _factor(part.factor, z)])
            guess = _unroll(part.decoder, start, guesses[name].shape[1])
            torch.testing.assert_close(guesses[name][row], guess)
            squares += float((guess[: len(frames)] - frames).square().sum())
            real += frames.numel()
        errors += weights[name] * squares / real
        codes += [torch.stack(seen)] if seen else []
    assert len(codes) == (4 if specific else 1)
    assert float(found["reconstruction"]) == pytest.approx(errors, rel=1e-10)
    assert float(found["mmd"]) == pytest.approx(0.7 * sum(float(prior_mmd(z)) for z in codes), rel=1e-10)


def test_padding_enters_no_loss() -> None:
    model = _mfm(steps=4)
    clean, spoilt = make_batch(), make_batch(pad=5, rubbish=float("nan"))
    one, other = (model.losses(model(batch), batch) for batch in (clean, spoilt))
    assert list(one) == ["reconstruction", "mmd"]
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-10, atol=0)


@pytest.mark.parametrize("kept", [{"audio"}, {"text", "vision"}])
def test_an_absent_modality_enters_no_loss(kept: set[str]) -> None:
    model, batch = _mfm(), make_batch()
    without, empty = batch.only(kept), emptied(batch, set(DIMS) - kept)
    one, other = (model.losses(model(each), each) for each in (without, empty))
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-10, atol=0)
    torch.autograd.backward(list(model.losses(model(empty), empty).values()))
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_batch_of_one_has_losses() -> None:
    model = _mfm().train()
    single = rows(make_batch(), [3])
    losses = model.losses(model(single), single)
    torch.autograd.backward(list(losses.values()))
    assert all(bool(loss.isfinite()) for loss in losses.values())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_predicting_needs_no_generative_part() -> None:
    model, batch = _mfm(), make_batch()
    model(batch).logits.sum().backward()
    assert all(p.grad is None for p in model.generative.parameters())
    torch.autograd.backward(list(model.losses(model(batch), batch).values()))
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.generative.parameters())


def test_what_is_rebuilt_is_the_standardised_input_without_a_gradient() -> None:
    torch.manual_seed(0)
    model: Any = MFM(dims=DIMS, **SMALL, text_encoder=Lookup()).double()
    model.normaliser.fit("audio", torch.full((3,), 2.0), torch.full((3,), 4.0))
    batch = with_tokens(make_batch())
    extra = model(batch).extra
    torch.testing.assert_close(extra["frames/audio"][0], (batch.inputs["audio"][0] - 2) / 4)
    torch.testing.assert_close(extra["frames/text"][0], model.text_encoder.table.weight[batch.inputs["text"][0]])
    assert not extra["frames/text"].requires_grad


def test_weights_of_zero_leave_decoders_out() -> None:
    model, batch = _mfm(lambda_recon={"text": 0.0, "audio": 0.1, "vision": 0.0}), make_batch()
    assert list(model.generative) == ["audio"]
    assert list(model.reconstruct(model(batch), batch)) == ["audio"]
    assert list(_mfm(lambda_recon=0.0).losses(model(batch), batch)) == ["mmd"]


@pytest.mark.parametrize("specific", [True, False])
def test_parameters_are_those_counted_by_hand(specific: bool) -> None:
    dims = {"text": 300, "audio": 5, "vision": 20}
    with torch.device("meta"):
        model = MFM(dims=dims, specific=specific)
    h, z = {"text": 88, "audio": 64, "vision": 48}, {"text": 32, "audio": 8, "vision": 80}
    f = {"text": 88, "audio": 8, "vision": 8} if specific else dict.fromkeys(dims, 0)
    total = 200
    expected = sum(4 * h[m] * (d + h[m] + 2) for m, d in dims.items())
    expected += 2 * total * 128 + 128 + 128 * 2 * total + 2 * total  # attention
    expected += 2 * total * 128 + 128 + 128 * 64 + 64  # proposal
    expected += 2 * ((2 * total + 64) * 128 + 128 + 128 * 64 + 64)  # gates
    expected += (total + 64) * 32 + 32  # to z_y
    expected += 32 * 16 + 16 + 16 * 16 + 16  # to f_y
    expected += 16 * 16 + 16 + 16 + 1  # to y
    for m, d in dims.items():
        wide = 16 + f[m]
        expected += 4 * wide * (2 * wide + 2) + wide * d + d
        if specific:
            expected += 4 * z[m] * (d + z[m] + 2) + z[m] * z[m] + z[m] + z[m] * f[m] + f[m] + f[m] * f[m] + f[m]
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shared_latent": 0}, "`shared_latent` should be at least 1. Found `shared_latent = 0`"),
        ({"lambda_mmd": -1.0}, "`lambda_mmd` should be non-negative. Found `lambda_mmd = -1.0`"),
        ({"lambda_recon": -0.5}, "`lambda_recon` should be non-negative. Found `lambda_recon = -0.5`"),
        ({"latent": {"text": 3, "audio": 4}}, "`latent` should have a value for 'vision'"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _mfm(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(
        lambda: MFM(dims=DATA_DIMS, **{**SMALL, "latent": 4}, lambda_recon=1.0, dropout=0.0, factor_dropout=0.0), data
    )
    assert losses[-1] < losses[0]


def test_a_constant_is_soon_rebuilt() -> None:
    model = _mfm(lambda_recon=1.0, factor_dropout=0.0).train()
    batch = make_batch()
    for x in batch.inputs.values():
        x.fill_(0.5)
    optimizer, errors = torch.optim.Adam(model.parameters(), lr=0.03), []
    for _ in range(15):
        optimizer.zero_grad()
        error = model.losses(model(batch), batch)["reconstruction"]
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.3 * errors[0]

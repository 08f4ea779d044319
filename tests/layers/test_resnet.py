from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.layers.tiny_bert import save_tiny_bert
from tests.layers.tiny_resnet import save_tiny_resnet, tiny_resnet

from equipoise.layers import ResNetEncoder, Sequence

SHAPE = (1, 9, 8)


def _tiny() -> ResNetEncoder:
    return ResNetEncoder(SHAPE, weights=tiny_resnet(1))


def _frames(*, rubbish: float = 0.0) -> Sequence:
    values = torch.randn(4, 5, 72, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()
    return Sequence(values.masked_fill(~mask.unsqueeze(-1), rubbish), mask)


def _norms(encoder: ResNetEncoder) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in encoder.model.named_buffers() if "running" in name}


def test_each_real_frame_is_an_image_of_its_own() -> None:
    encoder, x = _tiny().eval(), _frames()
    out = encoder(x)
    assert out.values.shape == (4, 5, encoder.dim) == (4, 5, 8)
    for row, step in x.mask.nonzero().tolist():
        alone = encoder.model(x.values[row, step].view(1, *SHAPE)).last_hidden_state.mean(dim=(2, 3))[0]
        torch.testing.assert_close(out.values[row, step], alone, atol=1e-6, rtol=0)
    assert bool((out.values[~x.mask] == 0).all())
    assert torch.equal(out.mask, x.mask)


@pytest.mark.parametrize("rubbish", [1e6, float("nan")])
def test_batch_normalisation_never_sees_padding(rubbish: float) -> None:
    spoilt, real = _tiny().train(), _tiny().train()
    x = _frames(rubbish=rubbish)
    out = spoilt(x)
    real.model(x.values[x.mask].view(-1, *SHAPE))
    assert all(torch.equal(a, _norms(real)[name]) for name, a in _norms(spoilt).items())
    # Statistics of the first layer, by hand: each of 7 real frames gives 5 x 4 outputs, moved in by a tenth.
    convolved = real.model.embedder.embedder.convolution(x.values[x.mask].view(-1, *SHAPE))
    assert convolved.shape == (7, 4, 5, 4)
    expected = 0.1 * convolved.transpose(0, 1).flatten(1).mean(dim=1)
    torch.testing.assert_close(spoilt.model.embedder.embedder.normalization.running_mean, expected)
    out.values.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in spoilt.parameters())


def test_a_lone_frame_is_normalised_as_in_evaluation_and_moves_no_statistics() -> None:
    encoder, x = _tiny(), _frames()
    with torch.no_grad():
        encoder.train()(x)  # other statistics than the first
    before, lone = _norms(encoder), Sequence(x.values[3:], x.mask[3:])
    training = encoder(lone).values
    assert encoder.model.training
    assert all(torch.equal(a, before[name]) for name, a in _norms(encoder).items())
    assert torch.equal(training, encoder.eval()(lone).values)


def test_no_frame_at_all_is_zeros() -> None:
    x = _frames()
    out = _tiny().train()(Sequence(x.values, torch.zeros_like(x.mask)))
    assert torch.equal(out.values, torch.zeros(4, 5, 8))


@pytest.mark.parametrize("channels", [1, 3])
def test_without_weights_it_is_a_resnet_18(channels: int) -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder((channels, 32, 32))
    stem = channels * 64 * 49 + 2 * 64
    blocks = 0
    for i, width in enumerate([64, 128, 256, 512]):
        before = 64 if i == 0 else width // 2
        blocks += 9 * before * width + 3 * 9 * width * width + 4 * 2 * width
        blocks += before * width + 2 * width if i else 0  # the shortcut's convolution and norm
    assert sum(p.numel() for p in encoder.parameters()) == stem + blocks
    assert stem + blocks == {1: 11_170_240, 3: 11_176_512}[channels]  # 11,689,512 without the 513,000 of its classifier
    assert encoder.dim == 512


def test_weights_are_those_of_the_folder(tmp_path: Path) -> None:
    from transformers import ResNetForImageClassification, ResNetModel

    folder = save_tiny_resnet(tmp_path / "resnet", 3)
    saved: Any = ResNetModel.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(ResNetEncoder((3, 4, 4), weights=str(folder)).parameters(),
                                                 saved.parameters(), strict=True))  # fmt: skip
    ResNetForImageClassification(saved.config).save_pretrained(tmp_path / "classifier")
    assert ResNetEncoder((3, 4, 4), weights=str(tmp_path / "classifier")).dim == 8


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"should be \(channels, height, width\).* Found `image_shape = \[28, 28\]`"):
        ResNetEncoder((28, 28))
    with pytest.raises(ValueError, match=r"all positive. Found `image_shape = \[1, 0, 28\]`"):
        ResNetEncoder((1, 0, 28))
    with pytest.raises(ValueError, match=r"should hold 72 values, an image of \[1, 9, 8\]. Found 5"):
        _tiny()(Sequence(torch.zeros(1, 1, 5), torch.ones(1, 1).bool()))
    with pytest.raises(FileNotFoundError, match="'nowhere' is neither the folder of a saved model nor the name"):
        ResNetEncoder(SHAPE, weights="nowhere")
    with pytest.raises(ValueError, match=r"should be a resnet for 3 channels. Found resnet for 1 channels"):
        ResNetEncoder((3, 4, 4), weights=tiny_resnet(1))
    with pytest.raises(ValueError, match=r"should be a resnet for 1 channels. Found bert for no channels"):
        ResNetEncoder(SHAPE, weights=str(save_tiny_bert(tmp_path)))

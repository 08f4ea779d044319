from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.layers.tiny_resnet import tiny_resnet
from tests.models.builders import DIMS, LENGTHS, Lookup, make_batch, with_tokens
from torch import Tensor

from equipoise.layers import masked_mean
from equipoise.models import LateFusion, Output
from equipoise.training.arguments import check_arguments

IMAGES: dict[str, Any] = {
    "encoder": {"text": "gru", "audio": "mean", "vision": "resnet18"},
    "image_shape": {"vision": (1, 2, 2)},
}


def _late(**given: Any) -> LateFusion:
    torch.manual_seed(0)
    return LateFusion(**{"dims": DIMS, "hidden": 8, **given}).double()


def _joined(model: LateFusion, output: Output) -> tuple[Tensor, Tensor]:
    """The weight of one layer over the concatenated features, and these features."""
    heads: Any = model.heads
    return torch.cat([heads[m].weight for m in DIMS], dim=1), torch.cat([output.features[m] for m in DIMS], dim=1)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_unimodal_logits_sum_to_the_logits(outputs: int, training: bool) -> None:
    output = _late(outputs=outputs).train(training)(make_batch())
    assert output.unimodal is not None
    torch.testing.assert_close(sum(output.unimodal.values()), output.logits)


@pytest.mark.parametrize("outputs", [1, 3])
def test_combined_by_their_mean_each_modality_predicts_the_target_itself(outputs: int) -> None:
    model = _late(outputs=outputs, combine="mean").eval()
    output, alone = model(make_batch()), model(make_batch().only(["text"]))
    assert output.unimodal is not None
    torch.testing.assert_close(sum(output.unimodal.values()) / 3, output.logits)
    bias = model.bias if outputs > 1 else model.bias.squeeze()
    torch.testing.assert_close(alone.unimodal["audio"], bias.expand_as(output.logits))
    torch.testing.assert_close(alone.logits, (output.unimodal["text"] + 2 * bias) / 3)


def test_an_mlp_is_no_mean_of_terms() -> None:
    with pytest.raises(ValueError, match='needs `head="linear"`'):
        _late(head="mlp", combine="mean")
    with pytest.raises(ValueError, match=r"Found `combine = 'max'`"):
        _late(combine="max")


def test_the_linear_head_is_one_layer_over_the_concatenation() -> None:
    model = _late(outputs=3).eval()
    output = model(make_batch())
    weight, concatenation = _joined(model, output)
    torch.testing.assert_close(output.logits, concatenation @ weight.T + model.bias)
    # Drawn as one layer, too: uniform within 1 / sqrt(48), where three layers would go to 1 / sqrt(16).
    assert weight.abs().max().item() == pytest.approx(48**-0.5, rel=0.05)
    assert weight.abs().max().item() <= 48**-0.5


def test_the_mlp_head_is_a_network_on_the_concatenation() -> None:
    model = _late(head="mlp", outputs=2).eval()
    output = model(make_batch())
    weight, concatenation = _joined(model, output)
    last: Any = model.mlp
    hidden = (concatenation @ weight.T + model.bias).clamp(min=0)
    torch.testing.assert_close(output.logits, hidden @ last[-1].weight.T + last[-1].bias)
    assert output.unimodal is None


def test_a_missing_modality_leaves_its_share_of_the_bias() -> None:
    model = _late(outputs=2).eval()
    output = model(make_batch().only(["text"]))
    assert output.unimodal is not None
    torch.testing.assert_close(output.unimodal["audio"], (model.bias / 3).expand(4, 2))
    torch.testing.assert_close(sum(output.unimodal.values()), output.logits)


def test_probes_learn_without_teaching_the_encoders() -> None:
    model = _late(head="mlp", probe=True)
    unimodal = model(make_batch()).unimodal
    assert unimodal is not None
    assert set(unimodal) == set(DIMS)
    torch.autograd.backward([x.square().sum() for x in unimodal.values()])
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {"probes"}


def test_the_recipe_of_two_summed_grus_fits() -> None:
    # AVLetters: two bidirectional GRUs 96 wide each way, the mean over time, summed logits, 26 letters.
    model = _late(dims={"audio": 26, "vision": 40}, outputs=26, hidden=96, encoder="gru", dropout=0.0)
    batch = make_batch({"audio": (5, 3), "vision": (4, 6)}, {"audio": 26, "vision": 40})
    output = model(batch)
    assert {name: x.shape for name, x in output.features.items()} == {"audio": (2, 192), "vision": (2, 192)}
    encoder: Any = model.encoders["audio"]
    states, _ = encoder.rnn(batch.inputs["audio"][:1])
    torch.testing.assert_close(output.features["audio"][0], states[0].mean(dim=0))
    assert sum(p.numel() for p in model.heads.parameters()) == 2 * 192 * 26


def test_the_recipe_of_pooled_tokens_and_one_linear_layer_fits() -> None:
    # MOSI text: the mean of the encoder's vectors, one linear layer and nothing between.
    lookup = Lookup()
    model = _late(dims={"text": 0}, text_encoder=lookup, dropout=0.0)
    batch = with_tokens(make_batch())
    mean = masked_mean(lookup(batch.inputs["text"], batch.masks["text"]), batch.masks["text"])
    head: Any = model.heads["text"]
    torch.testing.assert_close(model(batch).logits, (mean @ head.weight.T + model.bias).squeeze(-1))
    own = [name for name, _ in model.named_parameters() if not name.startswith("text_encoder")]
    assert own == ["bias", "heads.text.weight"]


def test_text_tokens_pass_another_encoder_if_a_mapping_says_so() -> None:
    model = _late(text_encoder=Lookup(), encoder={"text": "gru", "audio": "mean", "vision": "transformer"})
    assert model.widths == {"text": 16, "audio": 8, "vision": 8}
    assert model(with_tokens(make_batch())).logits.shape == (4,)


def test_a_modality_with_nothing_to_train_is_balanced_by_its_head() -> None:
    frozen = Lookup().requires_grad_(False)
    groups = (model := _late(text_encoder=frozen)).modalities()
    assert groups.parameters("text") == list(model.heads["text"].parameters())
    assert groups.parameters("audio") == list(model.encoders["audio"].parameters())
    assert _late(text_encoder=Lookup()).modalities().parameters("text")[0].shape == (11, 5)


def test_heads_are_a_stage_of_their_own() -> None:
    model = _late()
    groups = model.modalities("heads")
    assert {name: [p.shape for p in groups.parameters(name)] for name in groups} == {n: [(1, 16)] for n in DIMS}


def test_an_image_is_the_mean_of_what_the_network_says_of_its_frames() -> None:
    model = _late(**IMAGES, image_weights={"vision": tiny_resnet(1)}).eval()
    batch = make_batch()
    encoder: Any = model.encoders["vision"]
    for row, length in enumerate(LENGTHS["vision"]):
        images = batch.inputs["vision"][row, :length].reshape(length, 1, 2, 2)
        expected = encoder.model(images).pooler_output[:, :, 0, 0].mean(dim=0)
        torch.testing.assert_close(model(batch).features["vision"][row], expected)
    assert model.widths == {"text": 16, "audio": 8, "vision": 8}


def test_images_come_from_a_config_too() -> None:
    given = IMAGES | {"image_shape": {"vision": [1, 2, 2]}}  # YAML has no tuples
    checked = check_arguments(LateFusion, given, key="model", fixed=("dims",))
    assert checked["image_shape"] == {"vision": (1, 2, 2)}
    with torch.device("meta"):
        model = LateFusion(dims=DIMS, **checked)
    assert model.widths["vision"] == 512


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": "tree"}, r'`head` should be "linear" or "mlp". Found `head = \'tree\'`'),
        ({"probe": True}, r'`probe` needs `head="mlp"`'),
        ({"encoder": "cnn"}, r'`encoder` should be "gru", "transformer", "mean", "pool" or "resnet18"'),
        ({"encoder": {"text": "gru"}}, r"`encoder` should name each of \['text', .*\]. Found \['text'\]"),
        ({"encoder": "transformer", "heads": 3}, "`heads` should divide the width 8"),
        ({"encoder": "resnet18"}, r"`image_shape` should name the modalities whose .*, \['text', .*\]. Found \[\]"),
        ({"image_shape": {"vision": (1, 2, 2)}}, r"`image_shape` should name .*, \[\]. Found \['vision'\]"),
        (IMAGES | {"image_shape": {"vision": (1, 2, 3)}}, r"product 4 for 'vision', .* Found \[1, 2, 3\]"),
        (IMAGES | {"image_weights": {"text": "folder"}}, r"`image_weights` should name .* Found \['text'\]"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _late(**given)

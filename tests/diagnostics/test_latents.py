"""The last latent is what the last linear layer reads, whatever the model; rows stay those of the split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.models.builders import BUILDS, make_batch
from torch import Tensor, nn

from equipoise.data import Split, synthetic
from equipoise.diagnostics.latents import last_latent, representations
from equipoise.models import AGSSMoE, LateFusion

NAMES = ("text", "audio", "vision")
WIDE = {"text": 6, "audio": 5, "vision": 4}
NO_LAST_LINEAR = {"lmf", "lmf-weighted"}  # the outputs are products of factors
GATED = {"psp", "psp-maps"}  # each segment's score is weighted by itself


def built(name: str, **given: Any) -> Any:
    torch.manual_seed(1)
    return BUILDS[name](**given).double().eval()


@pytest.mark.parametrize("name", sorted(name for name in BUILDS if not name.endswith("images")))
def test_the_logits_are_an_affine_function_of_the_latent(name: str) -> None:
    model = built(name)
    random = np.random.default_rng(0)
    batch = make_batch({m: tuple(random.integers(1, 6, 160).tolist()) for m in NAMES})
    with torch.no_grad():
        encoded = model.encode(batch)
        logits = model.fuse(encoded).logits
    z = last_latent(lambda: model.fuse(encoded).logits, model)
    if name in NO_LAST_LINEAR:
        assert z is None
        return
    assert z is not None
    assert len(z) == 160
    assert z.shape[1] < 120
    if name in GATED:
        return
    known = torch.cat([z.detach(), torch.ones(160, 1, dtype=torch.float64)], dim=1)
    weights = torch.linalg.lstsq(known[:140], logits[:140].unsqueeze(1), driver="gelsd").solution
    missed = (known[140:] @ weights).squeeze(1) - logits[140:]
    # Of segments, a last one where no unit is active looks like padding: a few samples may be off.
    share = 0.9 if name.startswith("psp") else 1.0
    assert missed.abs().quantile(share) < 1e-6 * logits.std()


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("late-gru", 3 * 16),  # a head for each modality, stored apart, is one classifier
        ("late-mlp", 8),
        ("late-mlp-probe", 8),  # probes on detached features are none of the logits' business
        ("self-mm", 8),  # nor are unimodal heads, which come later in the forward
        ("cpsl", 8),
        ("tfn", 8),
        ("film", 16),
        ("glomo-attention", 8),
    ],
)
def test_the_latent_is_as_wide_as_the_input_of_the_classifier(name: str, width: int) -> None:
    model, batch = built(name), make_batch()
    z = last_latent(lambda: model(batch).logits, model)
    assert z is not None
    assert z.shape == (4, width)


def test_late_fusion_has_the_concatenation_of_its_features() -> None:
    model, batch = built("late-gru"), make_batch()
    z = last_latent(lambda: model(batch).logits, model)
    assert z is not None
    torch.testing.assert_close(z, torch.cat(list(model(batch).features.values()), dim=1))


def test_padding_changes_no_latent_of_a_classifier_that_reads_frames() -> None:
    model = built("psp")
    plain, padded = (last_latent(lambda b=b: model(b).logits, model) for b in (make_batch(), make_batch(pad=3)))  # type: ignore[misc]
    assert plain is not None
    torch.testing.assert_close(plain, padded)


class Foreign(nn.Module):
    """Two streams, an in-place activation, and an unimodal head after the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(7, 3)
        self.aside = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.act(self.first(x))
        return self.last(hidden), self.aside(hidden)


@pytest.mark.parametrize("frozen", [False, True])
def test_any_module_will_do_also_a_frozen_one(frozen: bool) -> None:
    model, x = Foreign().requires_grad_(not frozen), torch.randn(4, 5)
    z = last_latent(lambda: model(x)[0], model)
    assert z is not None
    torch.testing.assert_close(z, model.first(x).relu())
    named = last_latent(lambda: model(x)[0], model, at=model.last)
    assert named is not None
    torch.testing.assert_close(named, z)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_followed_is_refused() -> None:
    model, x = Foreign(), torch.randn(4, 5)
    with pytest.raises(ValueError, match="leave out `no_grad`"):
        last_latent(torch.no_grad()(lambda: model(x)[0]), model)
    with pytest.raises(ValueError, match="Parameter `at` should be a module that the model calls"):
        last_latent(lambda: model(x)[0], model, at=nn.Linear(2, 2))
    assert last_latent(lambda: x * 2, model) is None


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return synthetic(tmp_path_factory.mktemp("data") / "small", n=60, dims=WIDE, seed=2).split("train")


def test_rows_are_those_of_the_split_whatever_the_batches(split: Split) -> None:
    model = built("late-gru", dims=WIDE).float()
    model.train()
    small, large = (representations(model, split, batch_size=size) for size in (5, 64))
    assert list(small) == [*NAMES, "text+audio", "text+vision", "audio+vision", "fused"]
    for name, values in small.items():
        np.testing.assert_allclose(values, large[name], atol=1e-6)
    assert model.training
    model.eval()
    one = model(split.batch([7]))
    np.testing.assert_allclose(small["audio"][7], one.features["audio"][0].detach(), atol=1e-6)
    np.testing.assert_allclose(small["fused"][7], torch.cat(list(one.features.values()), dim=1)[0].detach(), atol=1e-6)
    pair = model(split.batch([7]).only(["text", "vision"])).features
    np.testing.assert_allclose(small["text+vision"][7], torch.cat(list(pair.values()), dim=1)[0].detach(), atol=1e-6)


def test_a_model_without_a_last_linear_layer_is_read_by_its_features(split: Split) -> None:
    found = representations(built("lmf", dims=WIDE).float(), split, pairs=False)
    np.testing.assert_array_equal(found["fused"], np.hstack([found[name] for name in NAMES]))


def test_two_modalities_have_no_pair_beside_the_fused(split: Split) -> None:
    model = LateFusion(dims={"text": 6, "audio": 5}, hidden=4)
    assert list(representations(model, split, ("text", "audio"))) == ["text", "audio", "fused"]


def test_stages_are_what_their_modules_say(split: Split) -> None:
    model = built("ags", dims=WIDE).float()
    assert isinstance(model, AGSSMoE)
    ticks: list[tuple[int, int]] = []
    stages = dict(model.branches.named_children())
    found = representations(
        model, split, pairs=True, stages=stages, batch_size=20, progress=lambda *at: ticks.append(at)
    )
    assert found["ta"].shape == found["tv"].shape == (42, 8)
    streams = model.encode(split.batch([3]))
    expected = model.branches["ta"](streams["text"], streams["audio"])
    np.testing.assert_allclose(found["ta"][3], expected[0].detach(), atol=1e-5)
    assert ticks == [(1, 3), (2, 3), (3, 3)]

"""A saved model is the model: same output to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.models.builders import BUILDS, DIMS, Build, make_batch
from tests.training.saved_models import assert_same, info, trained
from torch import nn

from equipoise.data import Dataset
from equipoise.models import LMF, LateFusion, SelfMM
from equipoise.training.model_info import describe
from equipoise.training.pretrained import from_pretrained, save_pretrained
from equipoise.training.state import load_state


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_save_then_load_is_the_same_to_the_bit(build: Build, tmp_path: Path) -> None:
    assert_kept(build, torch.float32, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["ags", "tfn", "glomo"])
def test_weights_keep_their_precision(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    assert_kept(BUILDS[name], dtype, tmp_path)


def assert_kept(build: Build, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = trained(build(outputs=3)).to(dtype).eval()
    save_pretrained(model, tmp_path / "saved", info(3))
    drawn = torch.get_rng_state()
    loaded, surroundings = from_pretrained(tmp_path / "saved")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert surroundings == info(3)
    state, expected = loaded.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name
    if dtype != torch.bfloat16:  # not every layer's CPU kernel takes it; the weights above are the same
        batch = make_batch(dtype=dtype)
        assert_same(loaded(batch), model(batch))
        assert_same(loaded(batch.only(["text"])), model(batch.only(["text"])))


def test_how_clips_were_read_comes_along(dataset: Dataset, tmp_path: Path) -> None:
    recipe = {"audio": {"name": "log-mel", "arguments": {"bands": 40}}, "align": "none"}
    manifest = replace(dataset.manifest, extra={**dataset.manifest.extra, "extraction": recipe})
    names = dataset.modalities
    model = LMF(dims={name: each.dim for name, each in manifest.modalities.items()})
    folder = save_pretrained(model, tmp_path / "saved", describe(Dataset(dataset.path, manifest), names))
    assert from_pretrained(folder)[1].extraction == recipe
    assert describe(dataset, names).extraction is None  # made of feature files: it can read no clips
    config = json.loads((folder / "config.json").read_text())
    del config["info"]["extraction"]  # as a version without the field has saved it
    (folder / "config.json").write_text(json.dumps(config))
    assert from_pretrained(folder)[1] == describe(dataset, names)


class Remembering(nn.Module):
    """A model that learns the number of samples from the data."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.register_buffer("labels", torch.empty(0))
        self.layer = nn.Linear(2, 1)


def test_a_buffer_that_starts_empty_takes_the_size_that_was_saved() -> None:
    grown, fresh = Remembering(), Remembering()
    grown.inner.labels = torch.arange(5.0)
    load_state(fresh, grown.state_dict())
    assert torch.equal(fresh.inner.get_buffer("labels"), torch.arange(5.0))
    assert "inner.labels" in fresh.state_dict()
    assert torch.equal(fresh.layer.weight, grown.layer.weight)
    with pytest.raises(RuntimeError, match=r"inner.labels"):  # what has a size keeps it
        load_state(fresh, {**grown.state_dict(), "inner.labels": torch.zeros(4)})
    with pytest.raises(RuntimeError, match=r"layer.weight"):
        load_state(Remembering(), {**grown.state_dict(), "layer.weight": torch.zeros(1, 3)})


def test_the_folder_says_what_the_model_needs(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((saved / "config.json").read_text())
    assert config["model"]["name"] == "LMF"
    assert config["model"]["arguments"]["hidden"] == 4
    assert config["model"]["arguments"]["rank"] == 4  # a default, which another version may change
    assert config["info"]["labels"]["scale"] == "mosi"
    assert config["info"]["modalities"]["audio"]["extractor"] == "audio-net 2.1"
    assert "normaliser.audio_mean" in safetensors.torch.load_file(saved / "model.safetensors")


def test_a_cached_name_loads_offline(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    # As the hub's client lays out its cache: refs name commits, snapshots hold them.
    cache, commit = tmp_path / "cache", "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--lab--films"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    saved.rename(repository / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    model, surroundings = from_pretrained("lab/films")
    assert type(model) is LMF
    assert surroundings == info()


def test_a_pretrained_image_encoder_comes_along(tmp_path: Path) -> None:
    from tests.layers.tiny_resnet import save_tiny_resnet

    started = save_tiny_resnet(tmp_path / "resnet", 3)
    torch.manual_seed(0)
    model = trained(
        LateFusion(
            dims=DIMS,
            encoder={"text": "mean", "audio": "resnet18", "vision": "mean"},
            image_shape={"audio": (3, 1, 1)},
            image_weights={"audio": str(started)},
        )
    ).eval()
    save_pretrained(model, tmp_path / "saved", info())
    started.rename(tmp_path / "gone")
    (tmp_path / "saved").rename(tmp_path / "elsewhere")
    loaded, surroundings = from_pretrained(tmp_path / "elsewhere")
    batch = make_batch(dtype=torch.float32)
    assert_same(loaded(batch), model(batch))
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "config.json").read_text()
    again, _ = from_pretrained(save_pretrained(loaded, tmp_path / "again", surroundings))
    assert_same(again(batch), model(batch))


def test_what_a_model_learned_of_its_training_samples_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SelfMM(dims=DIMS).train()
    batch = make_batch(dtype=torch.float32)
    model.losses(model(batch), batch)
    assert len(model.labels.targets) == len(batch)
    save_pretrained(model.eval(), tmp_path / "saved", info())
    loaded, _ = from_pretrained(tmp_path / "saved")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name].nan_to_num(), tensor.nan_to_num()), name
    assert_same(loaded(batch), model(batch))

"""A text encoder, fine-tuned or frozen, comes along with the model that was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.layers.tiny_bert import save_tiny_bert
from tests.models.builders import BUILDS, DIMS, Build, make_batch, with_tokens
from tests.training.saved_models import assert_same, info, trained

from equipoise.data import Dataset
from equipoise.layers import TextEncoder, weights_sha256
from equipoise.models import LMF
from equipoise.training.config import TextConfig
from equipoise.training.model_info import ModelInfo, TextInfo, describe
from equipoise.training.prepare import open_dataset
from equipoise.training.pretrained import from_pretrained, save_pretrained


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert") / "tiny")


def with_text(bert: Path, **changed: Any) -> ModelInfo:
    text = TextInfo(str(bert), weights_sha256(bert), "finetune", 16)
    return info(text=text, **changed)


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_a_fine_tuned_text_encoder_comes_along(build: Build, bert: Path, tmp_path: Path) -> None:
    moved = tmp_path / "bert"
    moved.mkdir()
    for path in bert.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    torch.manual_seed(0)
    model = trained(build(text_encoder=TextEncoder(moved))).eval()
    save_pretrained(model, tmp_path / "saved", with_text(moved))
    for path in moved.iterdir():
        path.unlink()
    moved.rmdir()
    (tmp_path / "saved").rename(tmp_path / "elsewhere")
    loaded, surroundings = from_pretrained(tmp_path / "elsewhere")
    batch = with_tokens(make_batch(dtype=torch.float32))
    assert_same(loaded(batch), model(batch))
    assert all(bool(p.requires_grad) for p in loaded.parameters())
    assert surroundings.text == TextInfo(
        str(tmp_path / "elsewhere" / "text_encoder"), weights_sha256(bert), "finetune", 16, True, "bert"
    )
    again = save_pretrained(loaded, tmp_path / "again", surroundings)
    written = [json.loads((tmp_path / each / "config.json").read_text()) for each in ("again", "elsewhere")]
    assert written[0] == written[1]
    assert_same(from_pretrained(again)[0](batch), model(batch))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_text_encoder_keeps_its_precision(dtype: torch.dtype, bert: Path, tmp_path: Path) -> None:
    model = trained(LMF(dims=DIMS, text_encoder=TextEncoder(bert))).to(dtype)
    save_pretrained(model, tmp_path / "saved", with_text(bert))
    loaded, _ = from_pretrained(tmp_path / "saved")
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == dtype
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_an_encoder_inside_that_is_frozen_stays_frozen(bert: Path, tmp_path: Path) -> None:
    model = LMF(dims=DIMS, text_encoder=TextEncoder(bert, trainable=False))
    save_pretrained(model, tmp_path / "saved", with_text(bert))
    loaded, surroundings = from_pretrained(tmp_path / "saved")
    assert surroundings.text is not None
    assert not surroundings.text.trainable
    frozen = [name for name, p in loaded.named_parameters() if not p.requires_grad]
    assert frozen == [name for name, _ in loaded.named_parameters() if name.startswith("text_encoder.")]


def test_transformers_alone_reads_the_fine_tuned_encoder(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = trained(LMF(dims=DIMS, text_encoder=TextEncoder(bert))).eval()
    save_pretrained(model, tmp_path / "saved", with_text(bert))
    folder = tmp_path / "saved" / "text_encoder"
    encoder: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)("a good film", return_tensors="pt")
    ours = model.text_encoder(ids["input_ids"], ids["attention_mask"].bool())
    assert torch.equal(encoder(**ids).last_hidden_state, ours)


def test_a_frozen_encoder_is_kept_byte_for_byte(bert: Path, dataset: Dataset, tmp_path: Path) -> None:
    text = TextConfig(encoder=str(bert), mode="frozen", max_tokens=8)
    opened = open_dataset(str(dataset.path), text)
    dims = {name: each.dim for name, each in opened.manifest.modalities.items()}
    model = LMF(dims=dims)
    save_pretrained(model, tmp_path / "saved", describe(opened, tuple(dims), text))
    _, found = from_pretrained(tmp_path / "saved")
    assert found.text is not None
    assert found.text.mode == "frozen"
    assert found.text.origin == "tiny"
    assert weights_sha256(Path(found.text.encoder)) == found.text.sha256 == weights_sha256(bert)
    own = TextConfig(encoder=found.text.encoder, mode=found.text.mode, max_tokens=found.text.max_tokens)
    before = sorted(dataset.cache_dir.iterdir())
    again = open_dataset(str(dataset.path), own)
    assert sorted(dataset.cache_dir.iterdir()) == before  # the same key: nothing was encoded again
    assert torch.equal(torch.from_numpy(again.sequence("text", 3)), torch.from_numpy(opened.sequence("text", 3)))


def test_a_failed_save_leaves_nothing(tmp_path: Path, bert: Path) -> None:
    model = LMF(dims=DIMS, text_encoder=TextEncoder(bert))
    lost = info(text=TextInfo(str(tmp_path / "lost"), "0" * 64, "finetune", 16))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_pretrained(model, tmp_path / "saved", lost)
    assert list(tmp_path.iterdir()) == []

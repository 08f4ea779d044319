"""A saved model is the model: same output to the bit, and one clear line for whatever is not a saved model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.layers.tiny_bert import save_tiny_bert
from tests.models.builders import BUILDS, DIMS, Build, Lookup, make_batch, with_tokens
from torch import nn

from equipoise.data import Dataset
from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.layers import TextEncoder, weights_sha256
from equipoise.models import LMF, TFN, LateFusion, Output, SelfMM
from equipoise.training.config import TextConfig
from equipoise.training.model_config import is_pretrained
from equipoise.training.model_info import ModelInfo, TextInfo, describe
from equipoise.training.prepare import open_dataset
from equipoise.training.pretrained import from_pretrained, save_pretrained
from equipoise.training.state import load_state

models = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


def info(outputs: int = 1, **changed: Any) -> ModelInfo:
    """What surrounds a model of the tests' sizes."""
    modalities = {
        name: ModalityInfo(dim, "float32", 9, 1, 3.5, 7, 0, 0, f"{name}-net 2.1") for name, dim in DIMS.items()
    }
    labels = LabelInfo("regression", outputs, (-3.0, 3.0), scale="mosi" if outputs == 1 else None)
    given: dict[str, Any] = {
        "modalities": modalities,
        "labels": labels,
        "dataset": "films",
        "source": "a shelf",
        "synthetic": True,
        "run": {"seed": 3, "balancer": ["ags"]},
    }
    return ModelInfo(**{**given, **changed})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert") / "tiny")


def with_text(bert: Path, **changed: Any) -> ModelInfo:
    text = TextInfo(str(bert), weights_sha256(bert), "finetune", 16)
    return info(text=text, **changed)


def assert_same(one: Output, other: Output) -> None:
    assert torch.equal(one.logits, other.logits)
    assert (one.unimodal or {}).keys() == (other.unimodal or {}).keys()
    assert one.features.keys() == other.features.keys()
    for name, x in one.features.items():
        assert torch.equal(x, other.features[name])
    for name, x in (one.unimodal or {}).items():
        assert torch.equal(x, (other.unimodal or {})[name])


def trained(model: Any) -> Any:
    """Every parameter off its initial value, and statistics in the normaliser."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    for name in model.normaliser.dims:
        model.normaliser.fit(name, torch.randn(DIMS[name]), torch.rand(DIMS[name]) + 0.5)
    return model


@models
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


@models
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


def test_how_clips_were_read_comes_along(bert: Path, dataset: Dataset, tmp_path: Path) -> None:
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


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save_pretrained(LMF(dims=DIMS, hidden=4), tmp_path / "saved", info())


def test_the_folder_says_what_the_model_needs(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((saved / "config.json").read_text())
    assert config["model"]["name"] == "LMF"
    assert config["model"]["arguments"]["hidden"] == 4
    assert config["model"]["arguments"]["rank"] == 4  # a default, which another version may change
    assert config["info"]["labels"]["scale"] == "mosi"
    assert config["info"]["modalities"]["audio"]["extractor"] == "audio-net 2.1"
    assert "normaliser.audio_mean" in safetensors.torch.load_file(saved / "model.safetensors")


def spoil(**changes: Any) -> Callable[[Path], object]:
    """Change entries of `config.json`; None takes one out."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config.update(changes)
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return change


def cut(name: str, size: int) -> Callable[[Path], object]:
    """Truncate a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def foreign(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 768}')


def other_weights(folder: Path) -> None:
    """Whole files that agree with their digests, of another model than the config's."""
    config = json.loads((folder / "config.json").read_text())
    config["model"]["arguments"]["hidden"] = 5
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (cut("model.safetensors", 900), r"model.safetensors should be the file that was saved. It is damaged"),
        (cut("config.json", 60), r"config.json is damaged: it is not JSON"),
        (lambda folder: (folder / "config.json").unlink(), r"is no saved model: config.json not found"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            r"model.safetensors should be the file that was saved",
        ),
        (foreign, r"is no model that equipoise saved"),
        (spoil(version=2, equipoise="9.1"), r"version 1. Found 2, written by equipoise 9.1: install that version"),
        (spoil(model=None), r"config.json is damaged: `model` should be there as a dict"),
        (spoil(model={"name": "LMF"}), r"config.json is damaged: `arguments` should be there"),
        (spoil(model={"name": "Oracle", "arguments": {}}), r"a model that this version of equipoise does not have"),
        (spoil(model={"name": "LMF", "arguments": {"dims": DIMS, "magic": 1}}), r"LMF can't be built .* 'magic'"),
        (spoil(info={"labels": 3}), r"config.json is damaged: `info"),
        (spoil(files={}), r"The weights in .* are not those of its LMF"),
        (other_weights, r"The weights in .* are not those of its LMF"),
    ],
)
def test_what_is_no_whole_saved_model_is_one_line(saved: Path, damage: Callable[[Path], object], part: str) -> None:
    if part.startswith("The weights") and damage is not other_weights:
        (saved / "model.safetensors").unlink()
    damage(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=part) as error:
        from_pretrained(saved)
    assert "\n" not in str(error.value)


def test_only_a_saved_model_is_replaced_and_only_if_asked(saved: Path, tmp_path: Path) -> None:
    other = TFN(dims=DIMS, hidden=4, text_hidden=4, fusion_hidden=4)
    with pytest.raises(FileExistsError, match=r"is there already: replace it"):
        save_pretrained(other, saved, info())
    assert type(from_pretrained(saved)[0]) is LMF
    save_pretrained(other, saved, info(), overwrite=True)
    assert type(from_pretrained(saved)[0]) is TFN
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("chapter one")
    with pytest.raises(FileExistsError, match=r"precious is there already: give another one"):
        save_pretrained(other, precious, info(), overwrite=True)
    assert (precious / "thesis.tex").read_text() == "chapter one"
    assert not is_pretrained(precious)


def test_a_failed_save_leaves_nothing(tmp_path: Path, bert: Path) -> None:
    model = LMF(dims=DIMS, text_encoder=TextEncoder(bert))
    lost = info(text=TextInfo(str(tmp_path / "lost"), "0" * 64, "finetune", 16))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_pretrained(model, tmp_path / "saved", lost)
    assert list(tmp_path.iterdir()) == []


class Own(LateFusion):
    """A subclass that its user wrote."""


@pytest.mark.parametrize(
    ("make", "given", "part"),
    [
        (lambda: nn.Linear(2, 1), {}, r"should be a model of `equipoise.models`. Found a Linear"),
        (lambda: Own(dims=DIMS), {}, r"Found a Own"),
        (lambda: LMF(dims=DIMS, outputs=2), {}, r"should have the model's widths and outputs, .* 2\)\. Found .* 1\)"),
        (lambda: LMF(dims={**DIMS, "audio": 9}), {}, r"should have the model's widths and outputs"),
        (lambda: LMF(dims=dict(reversed(DIMS.items()))), {}, r"should have the model's widths and outputs"),
        (lambda: LMF(dims=DIMS, text_encoder=Lookup()), {}, r"should be a `TextEncoder`. Found a Lookup"),
        (
            lambda: LMF(dims=DIMS),
            {"text": TextInfo("minilm", "", "finetune", 9)},
            r"`text` of mode finetune if the model holds a text encoder, and only then. .* for none",
        ),
        (lambda: LMF(dims=DIMS), {"run": {"loss": float("nan")}}, r"values that JSON can hold"),
    ],
)
def test_what_can_not_be_saved_is_one_line(
    make: Callable[[], nn.Module], given: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=part) as error:
        save_pretrained(make(), tmp_path / "saved", info(**given))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_nowhere_is_one_line_at_once() -> None:
    # The test run sets HF_HUB_OFFLINE before the hub's client is imported.
    with pytest.raises(FileNotFoundError, match=r"neither a folder nor in the local hub cache, and HF_HUB_OFFLINE"):
        from_pretrained("some-body/some-model-that-is-not-cached")
    with pytest.raises(FileNotFoundError, match=r"'a/b' at revision 'v2' is neither"):
        from_pretrained("a/b", revision="v2")
    with pytest.raises(FileNotFoundError, match="neither a folder nor a valid hub name"):
        from_pretrained("not a name!!")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        from_pretrained("./nowhere")


def test_a_hub_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(FileNotFoundError, match=r"http://127.0.0.1:9 cannot be reached"):
        from_pretrained("some-body/some-model-that-is-not-cached")


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

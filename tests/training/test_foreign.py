from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.data import load, synthetic
from equipoise.experiments.cell import make_cell
from equipoise.experiments.grid import make_grid
from equipoise.models.foreign import ForeignModel
from equipoise.training.config import RunConfig, load_config, make_config
from equipoise.training.evaluate import predict
from equipoise.training.foreign import build_foreign, source_digest
from equipoise.training.run import load_run, run
from equipoise.training.steps import make_step

PAGE = Path(__file__).parents[2] / "docs" / "own_models.md"
GATED = '''
import torch
from torch import nn

class Gated(nn.Module):
    """Recurrent, with a gate between modalities: like nothing here."""

    def __init__(self, dims, outputs, width):
        super().__init__()
        for name, dim in dims.items():
            self.add_module(f"{name}_encoder", nn.GRU(dim, width, batch_first=True))
        self.names, self.gate, self.out = list(dims), nn.Linear(width, 1), nn.Linear(width, outputs)

    def forward(self, **inputs):
        last = [getattr(self, f"{name}_encoder")(inputs[name])[1][0] for name in self.names]
        weights = torch.stack([self.gate(each) for each in last]).softmax(dim=0)
        return self.out((torch.stack(last) * weights).sum(dim=0))

def make_model(dims, outputs, width=6):
    return Gated(dims, outputs, width)

def no_model(dims, outputs):
    return 3
'''


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small"
    synthetic(path, n=40, seed=3)
    return path


@pytest.fixture(name="gated")
def _gated(tmp_path: Path) -> Path:
    path = tmp_path / "gated.py"
    path.write_text(GATED)
    return path


def config_of(data: Path, gated: Path, **more: object) -> RunConfig:
    model = {"function": f"{gated}:make_model", "width": 4}
    train = {"epochs": 2}
    return make_config({"data": str(data), "model": model, "train": train, "threads": 1, **more})


@pytest.mark.parametrize("balancer", ["plain", "ags", "agm"])
def test_it_is_trained_balanced_and_loaded(data: Path, gated: Path, tmp_path: Path, balancer: str) -> None:
    """AGS works on gradients; AGM asks what the model says from each subset."""
    config = config_of(data, gated, balancer=balancer)
    assert config.model.name == f"{gated}:make_model"
    found = run(config, tmp_path / "run")
    assert found["own"] == "kept"
    assert set(found["modalities"]) == {"text", "audio", "vision"}
    assert load_config(tmp_path / "run" / "config.yaml") == config
    trained = load_run(tmp_path / "run")
    again = predict(trained.model, trained.dataset.split("test"), modalities=trained.modalities)
    errors = (again.logits - again.target).abs()
    assert float(errors.mean()) == pytest.approx(found["metrics"]["mae"], rel=1e-5)
    assert isinstance(trained.model, ForeignModel)
    assert trained.model.model.get_parameter("gate.weight").shape == (1, 4)


def test_killed_it_goes_on_to_the_very_same_weights_but_not_with_another_source(
    data: Path, gated: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, total: int, row: object) -> None:
        if done == total - 1:
            raise Killed

    config = config_of(data, gated, balancer="ags", train={"epochs": 3, "checkpoint_every": 1, "batch_size": 16})
    whole = run(config, tmp_path / "whole")
    with pytest.raises(Killed):
        run(config, tmp_path / "killed", progress=kill)
    gated.write_text(GATED.replace("softmax", "sigmoid"))
    with pytest.raises(ValueError, match=r"gated\.py has changed since the run in .* began"):
        run(config, tmp_path / "killed")
    gated.write_text(GATED)
    assert run(config, tmp_path / "killed")["metrics"] == whole["metrics"]
    first, second = (load_run(tmp_path / name).model.state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "whole" / "model_source.py").read_text() == GATED


def test_absent_modalities_are_zeros_that_no_padding_touches(data: Path, gated: Path) -> None:
    torch.manual_seed(0)
    split = load(data).split("train")
    dims = {name: split.manifest.modalities[name].dim for name in split.modalities}
    model = build_foreign(f"{gated}:make_model", {}, dims=dims, outputs=1).eval()
    batch = split.batch(range(3), list(split.modalities))
    step = make_step(model, batch, nn.functional.l1_loss, needs={"predict"})
    assert step.logits is not None
    assert step.predict is not None
    assert step.unimodal is None
    assert step.features is not None
    text = model.get_submodule("model.text_encoder")(batch.inputs["text"])[0]  # [B, T, d]
    frames = batch.masks["text"].unsqueeze(-1)
    torch.testing.assert_close(step.features["text"], (text * frames).sum(1) / frames.sum(1))
    torch.testing.assert_close(step.predict(frozenset(dims)), step.logits)
    alone = {name: x if name == "text" else torch.zeros_like(x) for name, x in batch.inputs.items()}
    by_hand = model.model(**alone).squeeze(-1)  # type: ignore[operator]
    torch.testing.assert_close(step.predict(frozenset({"text"})), by_hand)
    missing = model.fuse(model.encode(batch.only(["text"])))  # type: ignore[operator]
    one_frame = {**alone, **{name: torch.zeros(3, 1, dims[name]) for name in ("audio", "vision")}}
    torch.testing.assert_close(missing.logits, model.model(**one_frame).squeeze(-1))  # type: ignore[operator]


def small(forward: Callable[..., object], **parts: object) -> nn.Module:
    model: nn.Module = type("Mine", (nn.Module,), {"forward": forward, **parts})()
    return model


def batch() -> Batch:
    masks = {"text": torch.tensor([[True, True], [True, False]]), "audio": torch.ones(2, 1, dtype=torch.bool)}
    inputs = {"text": torch.ones(2, 2, 3), "audio": torch.full((2, 1, 1), 5.0)}
    return Batch(inputs, masks, torch.tensor([7.0, 7.0]), torch.arange(2))


def by_name(self: nn.Module, text: Tensor, audio: Tensor, text_mask: Tensor) -> Tensor:
    return text.sum((1, 2)) + 10 * text_mask.sum(1) + 100 * audio.sum((1, 2))


def by_batch(self: nn.Module, batch: Batch) -> Tensor:
    assert batch.target.isnan().all()
    return by_name(self, batch.inputs["text"], batch.inputs["audio"], batch.masks["text"])


def by_keywords(self: nn.Module, **all: Tensor) -> Tensor:
    assert set(all) == {"text", "audio", "text_mask", "audio_mask"}
    return by_name(self, all["text"], all["audio"], all["text_mask"])


def renamed(self: nn.Module, words: Tensor, sounds: Tensor) -> Tensor:
    return words + sounds


def read(self: nn.Module, batch: Batch) -> dict[str, Tensor]:
    words = batch.inputs["text"].sum((1, 2)) + 10 * batch.masks["text"].sum(1)
    return {"words": words, "sounds": 100 * batch.inputs["audio"].sum((1, 2))}


@pytest.mark.parametrize(
    "model", [small(by_name), small(by_batch), small(by_keywords), small(renamed, read=read)], ids=str
)
def test_every_way_to_read_a_batch_reads_the_same(model: nn.Module) -> None:
    # Two and one real frames of three ones, padding zeroed; audio 5: 6 + 20 + 500 and 3 + 10 + 500.
    found = ForeignModel(model, dims={"text": 3, "audio": 1})(batch())
    assert found.logits.tolist() == [526.0, 513.0]


def test_what_else_it_may_give() -> None:
    def both(self: nn.Module, text: Tensor, audio: Tensor) -> object:
        own = {"text": text.sum((1, 2))[:, None], "audio": audio.sum((1, 2))[:, None]}
        return {"logits": own["text"] + own["audio"], "unimodal": own, "features": {"text": text[:, 0]}}

    found = ForeignModel(small(both), dims={"text": 3, "audio": 1})(batch())
    assert found.logits.shape == (2,)
    assert found.unimodal is not None
    assert found.unimodal["text"].tolist() == [6.0, 3.0]
    assert found.features["text"].shape == (2, 3)

    def mean(self: nn.Module, text: Tensor, audio: Tensor) -> Tensor:
        towers = cast(Any, self).encoders
        said: Tensor = towers["text"](text).mean(1) + towers["audio"](audio[:, 0])
        return said

    torch.manual_seed(0)
    towers = nn.ModuleDict({"text": nn.Linear(3, 1), "audio": nn.Linear(1, 1)})
    seen = ForeignModel(small(mean, encoders=towers), dims={"text": 3, "audio": 1})(batch()).features
    torch.testing.assert_close(seen["audio"], towers["audio"](batch().inputs["audio"][:, 0]))
    text = towers["text"](torch.stack([torch.ones(3), torch.zeros(3)]))
    torch.testing.assert_close(seen["text"], torch.stack([text[0], text[0]]))  # the padded frame doesn't count
    assert ForeignModel(small(by_name, encoders=towers), dims={"text": 3, "audio": 1})(batch()).features == {}

    def wrong(self: nn.Module, text: Tensor, audio: Tensor) -> object:
        return text, audio

    with pytest.raises(ValueError, match=r"^Mine should return logits, or a mapping .* Found a tuple\."):
        ForeignModel(small(wrong), dims={"text": 3, "audio": 1})(batch())


def test_encoders_are_found_by_their_names() -> None:
    towers = {"text": nn.Linear(3, 1), "audio": nn.Linear(1, 1)}
    forms: list[dict[str, object]] = [
        {"encoders": towers},
        {"text": towers["text"], "encoder_audio": towers["audio"]},
        {"text_encoder": towers["text"], "audio_encoder": towers["audio"]},
    ]
    for parts in forms:
        groups = ForeignModel(small(by_name, **parts), dims={"text": 3, "audio": 1}).modalities()
        assert groups.names == ("text", "audio")
        assert all(groups.parameters(name)[0] is towers[name].weight for name in towers)
    with pytest.raises(ValueError, match=r"^Mine should say what is balanced for 'text'"):
        ForeignModel(small(by_name), dims={"text": 3, "audio": 1}).modalities()


def test_the_id_of_a_cell_is_of_the_source_and_of_no_place(data: Path, gated: Path, tmp_path: Path) -> None:
    def of(path: Path, **more: object) -> str:
        return make_cell(config_of(data, path, **more), dataset="d", model="m", method="p").id

    moved = tmp_path / "elsewhere.py"
    moved.write_text(GATED)
    first = of(gated)
    assert of(moved) == first
    moved.write_text(GATED + "\n# a remark\n")
    assert len({first, of(moved), of(gated, seed=1)}) == 3
    assert source_digest(f"{gated}:make_model").startswith("make_model@")


def test_names_in_a_grid(gated: Path) -> None:
    name = f"{gated}:make_model"
    start = {"datasets": ["d"]}
    forms = [
        {"mine": {"function": name, "model.width": 3}},
        {"mine": {"model": {"function": name, "width": 3}}},
        {"mine": {"model.name": name, "model.width": 3}},
    ]
    for models in forms:
        assert make_grid({**start, "models": models}).models == {"mine": {"model": {"name": name, "width": 3}}}
    assert make_grid({**start, "models": [{"function": name}]}).models == {"make_model": {"model": {"name": name}}}
    assert make_grid({**start, "models": [name]}).models == {name: {"model": {"name": name}}}


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("nowhere.py:make_model", {}, "File not found: nowhere.py"),
        ("no_such_package.part:make_model", {}, "Module not found: no_such_package.part"),
        ("GATED:make_modle", {}, "Unknown function `make_modle`. Did you mean `make_model`?"),
        ("GATED:make model", {}, "should be FILE.py:FUNCTION or MODULE:FUNCTION"),
        ("GATED:no_model", {}, "should return an `nn.Module`. Found a int."),
        ("GATED:make_model", {"widht": 3}, "Unknown config key `model.widht`. Did you mean `model.width`?"),
        ("BROKEN:make_model", {}, "can't be imported: ZeroDivisionError"),
    ],
)
def test_bad_functions_are_one_line(
    gated: Path, tmp_path: Path, name: str, arguments: dict[str, int], line: str
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    place = name.replace("GATED", str(gated)).replace("BROKEN", str(broken))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        build_foreign(place, arguments, dims={"text": 3}, outputs=1)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_forward_that_leaves_a_modality_out_is_refused() -> None:
    with pytest.raises(ValueError, match=r"forward should take text, audio, vision, .* Found forward\(text, audio, "):
        ForeignModel(small(by_name), dims={"text": 3, "audio": 1, "vision": 2})


def test_the_page_shows_a_model_that_trains(data: Path, tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)[0]
    (tmp_path / "my_model.py").write_text(code)
    found = run(config_of(data, tmp_path / "my_model.py", train={"epochs": 1}, balancer="ags"), tmp_path / "run")
    assert found["model"] == f"{tmp_path / 'my_model.py'}:make_model"

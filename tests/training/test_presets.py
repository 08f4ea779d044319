from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.layers.tiny_bert import save_tiny_bert
from tests.layers.tiny_resnet import tiny_resnet

from equipoise.balancers import BALANCERS
from equipoise.data import write_dataset
from equipoise.data.shapes import SHAPES, generate
from equipoise.models import MODELS
from equipoise.training.config import RunConfig, load_config
from equipoise.training.prepare import build_balancer
from equipoise.training.presets import PRESETS, find_config, preset_path
from equipoise.training.run import run

NARROW: dict[str, dict[str, Any]] = {  # what would take long on a processor: the size is built, not trained
    "agm-ur-funny": {"model.hidden": 16, "model.layers": 1},
    **{name: {"model.maxout": [8, 4]} for name in ("agm-av-mnist-early", "agm-crema-d-early")},
    "agm-ur-funny-early": {"model.hidden": 16, "model.layers": 1, "model.maxout": [8, 4]},
    "agm-mosei": {"model.hidden": 16, "model.layers": 2, "model.feed_forward": 16},
    "glomo-cherma": {"model.layers": 1, "model.feed_forward": 32},
    "glomo-mosei": {"model.layers": 1, "model.feed_forward": 32},
    "glomo-mustard": {"model.layers": 1, "model.feed_forward": 32},
    "glomo-ur-funny": {"model.layers": 1, "model.feed_forward": 32},
    "glomo-mosi": {"model.feed_forward": 32},
    "agm-pom": {"model.hidden": 8},
    **{name: {"model.layers": 2} for name in PRESETS if name.startswith("ags-smoe")},
}


def preset(name: str, **overrides: Any) -> RunConfig:
    return load_config(find_config(name), {"data": "somewhere", **overrides})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_bert(tmp_path_factory.mktemp("bert")))


def pom(path: Path) -> None:
    """Five samples of POM's shape: 17 traits in [0, 7], 20 steps of 43 and 41 features."""
    random = np.random.default_rng(0)
    write_dataset(
        path,
        name="POM",
        source="generated",
        task="regression",
        modalities={name: random.standard_normal((5, 20, d)) for name, d in (("audio", 43), ("vision", 41))},
        labels=random.uniform(1, 7, (5, 17)),
        label_range=(0, 7),
        ids=list("abcde"),
        splits=["train", "train", "train", "valid", "test"],
    )


def test_each_preset_has_its_file_and_each_file_its_preset() -> None:
    assert {path.stem for path in preset_path("x").parent.iterdir()} == set(PRESETS)
    assert {each.shape for each in PRESETS.values()} <= {*SHAPES, None}


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_says_what_it_rests_on(name: str) -> None:
    """Ours throughout, as the first lines then say, or a remark at each number."""
    lines = preset_path(name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    if "ours" in " ".join(line for line in lines if line.startswith("#")).replace("ours: neither", ""):
        return
    marked = [line for line in lines if line.startswith("  ") and "#" in line]
    assert len(marked) > 10


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_size_is_built_and_its_stages_exist(name: str) -> None:
    config = preset(name, text=None)
    shape = SHAPES[PRESETS[name].shape or "mosi"]
    dims = dict(shape.dims)
    if config.modalities is not None:
        assert set(config.modalities) <= set(dims)
    with torch.device("meta"):
        model = MODELS[config.model.name](dims=dims, outputs=shape.classes or 1, **config.model.arguments)
    balancer = build_balancer(config.balancer, model, list(dims))
    assert (balancer is None) == (config.balancer == [])
    for each in config.balancer:
        assert len(model.modalities(each.stage)) >= 2  # type: ignore[operator]
        assert each.name in BALANCERS
    images = config.model.arguments.get("image_shape") or {}
    assert {m: tuple(image) for m, image in images.items()} == (shape.images if images else {})
    assert config.train.loss == ("cross_entropy" if shape.classes else config.train.loss)
    assert config.text.encoder is None or shape.text or name == "agm-pom"


@pytest.mark.filterwarnings("ignore:Metric `corr` is NaN")  # one sample validates
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_on_data_of_its_shape(name: str, bert: str, tmp_path: Path) -> None:
    shape = PRESETS[name].shape
    if shape is None:
        pom(tmp_path / "data")
    else:
        count = 2 if SHAPES[shape].images else 4
        generate(tmp_path / "data", shape, scale=count / SHAPES[shape].splits[0])
    small: dict[str, Any] = {"train.epochs": 1, "train.batch_size": 2, "train.checkpoint_every": 0, "threads": 1}
    if images := preset(name).model.arguments.get("image_shape"):
        small["model.image_weights"] = {m: tiny_resnet(image[0]) for m, image in images.items()}
    if preset(name).text.encoder is not None:
        small |= {"text.encoder": bert, "text.max_tokens": 12}
    config = preset(name, **small, **NARROW.get(name, {}), data=str(tmp_path / "data"))
    report = run(config, tmp_path / "run")
    assert report["epochs"] == 1
    assert report["model"] == config.model.name
    assert report["balancer"] == [each.name for each in config.balancer]
    metrics = report["metrics"]
    assert metrics["accuracy" if config.train.loss == "cross_entropy" else "mae"] >= 0
    steps = (tmp_path / "run" / "steps.csv").read_text().splitlines()
    assert len(steps) == 3 if shape is None or SHAPES[shape].images == {} else 2
    factors = [column for column in steps[0].split(",") if column.startswith("factor/")]
    assert bool(factors) == bool({each.name for each in config.balancer} - {"sl"})
    assert json.loads((tmp_path / "run" / "test.json").read_text())["dataset"]["synthetic"] == (shape is not None)


def test_a_key_that_is_unknown_is_refused_in_a_preset_too(tmp_path: Path) -> None:
    for name in ("ags-smoe-mosi", "agm-pom"):
        values = yaml.safe_load(preset_path(name).read_text())
        values["train"]["epoch"] = 3
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
        with pytest.raises(ValueError, match=r"Unknown config key `train.epoch`. Did you mean `train.epochs`\?"):
            load_config(tmp_path / "run.yaml", {"data": "x"})


def test_a_file_of_that_name_comes_before_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("glomo-mosi") == preset_path("glomo-mosi")
    (tmp_path / "glomo-mosi").write_text("data: here\n")
    assert find_config("glomo-mosi") == Path("glomo-mosi")
    with pytest.raises(FileNotFoundError) as error:
        find_config("glomo_mossi")
    assert str(error.value).startswith("Config file not found: glomo_mossi. Did you mean the preset `glomo-mosi`?")
    with pytest.raises(FileNotFoundError, match=r"^Config file not found: glomo-mos.yaml\.$"):
        find_config("glomo-mos.yaml")


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        # Section 5.4 and the rows of the main results in Tables 4 to 7.
        ("ags-smoe-mosi", "model.layers", 9),
        ("ags-smoe-mosei", "train.batch_size", 64),
        # Section 3.1 of MMAFNet.
        ("mmafnet-mosi", "train.lr", 1e-4),
        ("mmafnet-mosei", "model.lambda_diff", 0.01),
        # Section 4.5 of GLoMo.
        ("glomo-mosi", "model.hidden", 48),
        ("glomo-mosei", "model.hidden", 192),
        ("glomo-ur-funny", "model.hidden", 112),
        ("glomo-mustard", "model.hidden", 160),
        ("glomo-cherma", "model.hidden", 256),
        ("glomo-mosei", "train.lr", 1e-5),
        ("glomo-cherma", "train.lr", 2e-5),
        ("glomo-cherma", "seed", 5576),
    ],
)
def test_what_the_papers_print(name: str, path: str, value: float) -> None:
    found: Any = preset(name).model_dump()
    for key in path.split("."):
        found = found[key]
    assert found == value


def test_ags_scales_with_the_values_of_the_main_results() -> None:
    def strengths(name: str) -> list[tuple[Any, ...]]:
        return [(each.stage, each.arguments["alpha"], each.arguments["until_epoch"]) for each in preset(name).balancer]

    assert strengths("ags-smoe-mosi") == [("encoders", 0.01, 6), ("fusion", 0.01, 6)]
    assert strengths("ags-smoe-mosei") == [("encoders", 0.05, 2), ("fusion", 0.005, 2)]


def test_glomo_at_mosi_has_the_published_number_of_parameters() -> None:
    """109,818,887 (Table 5), of which 108,891,648 are BERT's without its pooling head."""
    config = preset("glomo-mosi")

    class Bert(torch.nn.Module):
        dim = 768

    with torch.device("meta"):
        dims = SHAPES["mosi"].dims
        model = MODELS[config.model.name](dims=dims, text_encoder=Bert(), **config.model.arguments)
    assert sum(p.numel() for p in model.parameters()) == 109_818_887 - 108_891_648

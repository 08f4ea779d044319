from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from equipoise.training.arguments import check_arguments
from equipoise.training.config import RunConfig, TrainConfig, dump_config, load_config
from equipoise.training.loop import fit


def load(**overrides: Any) -> RunConfig:
    return load_config(
        None, {"data": "somewhere", **{key.replace("__", "."): value for key, value in overrides.items()}}
    )


def test_overrides_lie_over_the_file_and_strings_are_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: a\nmodel: {name: LateFusion, hidden: 8}\nbalancer: {name: ags, alpha: 0.1}\nseed: 3\n")
    config = load_config(
        path, {"model.hidden": "64", "balancer.alpha": "1e-3", "train.clip": "null", "modalities": "[text, audio]"}
    )
    assert config.model.arguments == {"hidden": 64}
    assert [each.arguments for each in config.balancer] == [{"alpha": 0.001}]
    assert config.train.clip is None
    assert config.modalities == ["text", "audio"]
    assert config.seed == 3


def test_a_name_stands_for_a_part_in_any_order() -> None:
    config = load(**{"balancer.alpha": "0.3", "balancer": "agm", "text": "minilm", "model": "AGSSMoE"})
    assert (config.balancer[0].name, config.balancer[0].arguments) == ("agm", {"alpha": 0.3})
    assert (config.text.encoder, config.text.mode, config.model.name) == ("minilm", "finetune", "AGSSMoE")


@pytest.mark.parametrize("plain", [None, "plain", {"name": "plain"}, []])
def test_plain_is_no_balancer(plain: object) -> None:
    assert load(balancer=plain).balancer == []


def test_several_balancers_keep_their_order_and_stages() -> None:
    config = load(balancer=[{"name": "ags", "alpha": 1}, {"name": "ags", "stage": "fusion"}])
    assert [(each.stage, each.arguments) for each in config.balancer] == [("encoders", {"alpha": 1.0}), ("fusion", {})]


def test_written_out_it_reads_back_as_it_was(tmp_path: Path) -> None:
    config = load(
        **{"balancer": ["ags", "ogm_ge"], "model.hidden": 5, "text": "minilm", "train.patience": 2, "seed": 9}
    )
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.epoch": 1}, "Unknown config key `train.epoch`. Did you mean `train.epochs`?"),
        ({"seeed": 1}, "Unknown config key `seeed`. Did you mean `seed`?"),
        ({"model.hiden": 1}, "Unknown config key `model.hiden`. Did you mean `model.hidden`?"),
        ({"balancer": "ags", "balancer.alfa": 1}, "Unknown config key `balancer.alfa`. Did you mean `balancer.alpha`?"),
        ({"model": "latefusion"}, "Config key `model.name`: Unknown name `latefusion`. Did you mean `LateFusion`?"),
        ({"balancer": "ogmge"}, "Config key `balancer.name`: Unknown name `ogmge`. Did you mean `ogm_ge`?"),
        ({"balancer.alpha": 1}, "Config key `balancer.name` is required"),
        ({"model.hidden": "wide"}, "Config key `model.hidden`: input should be a valid integer"),
        ({"model.dims": "{}"}, "Unknown config key `model.dims`"),
        (
            {"model.head": "cubic"},
            "Config key `model.head`: input should be 'linear' or 'mlp'. Found `model.head = 'cubic'`.",
        ),
        (
            {"train.epochs": 0},
            "Config key `train.epochs`: input should be greater than or equal to 1. Found `train.epochs = 0`.",
        ),
        ({"seed.x": 1}, "Config key `seed.x`: `seed` holds no keys"),
        ({"train.lr": "{"}, "Config key `train.lr`: the value is not valid YAML"),
        ({"train.lr": ".inf"}, "Config key `train.lr`: input should be a finite number. Found `train.lr = inf`."),
        ({"balancer": "ags", "balancer.alpha": ".nan"}, "Config key `balancer.alpha`: input should be a finite number"),
        ({"balancer": ["plain", "ags"]}, "Config key `balancer`: `plain` is no balancer"),
        ({"balancer": "plain", "balancer.alpha": 1}, "Config key `balancer`: `plain` is no balancer"),
        (
            {"model": ["LateFusion"]},
            "Config key `model` should be a mapping of settings. Found `model = ['LateFusion']`",
        ),
        ({"seed": 2**64}, "Config key `seed`: input should be less than or equal to 18446744073709551615"),
        ({"threads": 100000}, "Config key `threads`: input should be less than or equal to 1024"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(overrides: dict[str, Any], message: str) -> None:
    base = {"data": "somewhere", **({"seed": 1} if "seed.x" in overrides else {})}
    with pytest.raises(ValueError) as error:
        load_config(None, {**base, **overrides})
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_data_is_required_and_a_file_must_hold_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Config key `data` is required"):
        load_config()
    with pytest.raises(ValueError, match=r"is a directory. A config is a YAML file"):
        load_config(tmp_path)
    with pytest.raises(FileNotFoundError, match="Config file not found"):
        load_config(tmp_path / "none.yaml")
    for content, message in (
        ("[1]", "should hold a mapping"),
        ("a: [", "is not valid YAML"),
        ("data: x\ntrain: {epochs: 2}\ntrain: {lr: 0.1}\n", "line 3: the key `train` stands there twice"),
        ("[" * 5000, "is not valid YAML"),
    ):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_config(tmp_path / "bad.yaml")


def test_another_text_encoder_keeps_the_other_settings_of_text(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: x\ntext: {encoder: bert, lr: 1.0e-5, max_tokens: 60}\n")
    for key in ("text", "text.encoder"):
        found = load_config(file, {key: "minilm"}).text
        assert (found.encoder, found.lr, found.max_tokens) == ("minilm", 1e-5, 60)
        assert load_config(file, {key: "none"}).text.encoder is None
    file.write_text("data: x\ntext: none\n")
    assert load_config(file).text.encoder is None


@pytest.mark.parametrize("word", ["123", "0123", "1e5", "yes", "2024-01-01", "a #1", "{x}", "*x", "a: b"])
def test_what_yaml_would_read_as_something_else_can_name_a_directory(word: str) -> None:
    assert load(data=word).data == word
    assert load_config(None, {"data": "x", "text.encoder": "123"}).text.encoder == "123"


def test_words_stay_words_in_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("\ufeffdata: 0123  # a directory\ntext: {encoder: 77}\ntrain: {precision: no}\n", encoding="utf-8")
    config = load_config(path)
    assert (config.data, config.text.encoder, config.train.precision) == ("0123", "77", "no")
    path.write_text("data: x\ntext: null\nmodel: {encoder: {text: pool}}\n")
    assert load_config(path).text.encoder is None
    assert load_config(path).model.arguments == {"encoder": {"text": "pool"}}
    assert load_config(path, {"text": "{encoder: minilm, mode: frozen}"}).text.mode == "frozen"
    assert load_config(path, {"text.encoder": "null", "train.precision": "no"}).text.encoder is None


def test_required_arguments_are_asked_for_and_values_converted() -> None:
    class Takes:
        def __init__(self, fixed: object, *, needed: int, factor: float = 1.0) -> None: ...

    assert check_arguments(Takes, {"needed": 1, "factor": "1e-3"}, key="x", fixed={"fixed"}) == {
        "needed": 1,
        "factor": 1e-3,
    }
    with pytest.raises(ValueError, match=r"`x\.needed` is required by Takes"):
        check_arguments(Takes, {}, key="x", fixed={"fixed"})


def test_the_defaults_of_the_config_are_those_of_the_loop() -> None:
    parameters = inspect.signature(fit).parameters
    for name, field in TrainConfig.model_fields.items():
        if name not in ("normalise", "keep_epochs"):  # which the loop does not know
            assert field.default == parameters[name].default, name

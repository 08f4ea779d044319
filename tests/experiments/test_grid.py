from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from equipoise.experiments.grid import load_grid, make_grid
from equipoise.experiments.overrides import lay, nested

DATA = {"datasets": {"small": "data/small"}}


def test_names_alone_lists_and_mappings_say_the_same() -> None:
    short = make_grid({"datasets": {"a": "data/a"}, "models": ["TFN"], "methods": ["plain", "ags"]})
    long = make_grid(
        {
            "datasets": {"a": {"data": "data/a"}},
            "models": {"TFN": {"model": "TFN"}},
            "methods": {"plain": {"balancer": "plain"}, "ags": {"balancer": {"name": "ags"}}},
            "seeds": [0, 1, 2, 3, 4],
            "controls": True,
        }
    )
    mixed = make_grid({"datasets": [{"a": "data/a"}], "models": "TFN", "methods": ["plain", {"ags": None}]})
    assert short == long == mixed
    assert list(short.methods) == ["plain", "ags"]


def test_settings_of_an_entry_stay_with_it() -> None:
    grid = make_grid({**DATA, "models": {"TFN": {"model.hidden": 8}, "wide": {"model": "TFN", "train.lr": 0.1}}})
    assert grid.models["TFN"] == {"model": {"name": "TFN", "hidden": 8}}
    assert grid.models["wide"] == {"model": {"name": "TFN"}, "train": {"lr": 0.1}}


def test_the_model_is_that_of_the_base_where_none_is_named() -> None:
    assert list(make_grid({**DATA, "base": {"model": "MISA"}}).models) == ["MISA"]
    assert list(make_grid(DATA).models) == ["LateFusion"]


def test_a_file_a_preset_below_it_and_flags_over_it(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(
        "datasets: {mine: data/mine}\nmodels: [AGSSMoE]\nseeds: [7]\n"
        "base: {from: ags-smoe-mosi, train: {epochs: 3, clip: 0.5}}\n"
    )
    given = {"methods": ["agm"], "base": {"train.epochs": 4}}
    grid = load_grid(tmp_path / "grid.yaml", given)
    preset = load_grid(None, {**DATA, "base": {}, "models": ["AGSSMoE"]})
    assert grid.base["train"]["epochs"] == 4
    assert grid.base["train"]["clip"] == 0.5
    assert grid.base["train"]["batch_size"] == 64
    assert "train" not in preset.base
    assert list(grid.methods) == ["agm"]
    assert grid.seeds == (7,)
    assert grid.datasets == {"mine": {"data": "data/mine"}}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"dataset": "x"}, "Unknown grid key `dataset`. Did you mean `datasets`? Valid: base, controls, datasets, "),
        ({}, "Grid key `datasets` should hold at least one name, or names with settings. Found `datasets = None`."),
        ({**DATA, "models": ["AGSMoE"]}, "Grid key `models`: Unknown model `AGSMoE`. Did you mean `AGSSMoE`?"),
        ({**DATA, "methods": ["agss"]}, "Grid key `methods`: Unknown method `agss`. Did you mean `ags`?"),
        ({**DATA, "methods": ["plian"]}, "Grid key `methods`: Unknown method `plian`. Did you mean `plain`?"),
        ({**DATA, "methods": {"mine": {"train.lr": 1}}}, "Grid key `methods`: Unknown method `mine`."),
        (
            {**DATA, "methods": ["ags", "ags"]},
            "Grid key `methods` names `ags` twice. Give ",
        ),
        ({**DATA, "methods": {"ags": 3}}, "Grid key `methods.ags` should be a mapping of config keys. Found 3."),
        ({**DATA, "methods": {1: None}}, "Grid key `methods` should hold names. Found 1: put it in quotes."),
        ({**DATA, "methods": {"ags": {"seed": 3}}}, "Grid key `methods.ags` sets `seed`. The seeds of all "),
        ({**DATA, "seeds": [0, 0]}, "Grid key `seeds` should hold distinct seeds, from 0 to "),
        ({**DATA, "seeds": [True]}, "Grid key `seeds` should hold distinct seeds, from 0 to "),
        ({**DATA, "seeds": []}, "Grid key `seeds` should hold distinct seeds, from 0 to "),
        ({**DATA, "controls": "no"}, "Grid key `controls` should be true or false. Found `controls = 'no'`."),
        ({**DATA, "base": {"seed": 1}}, "Grid key `base` sets `seed`. That stands under `seeds`."),
        ({**DATA, "base": {"data": "x"}}, "Grid key `base` sets `data`. That stands under `datasets`."),
        ({**DATA, "base": [1]}, "Grid key `base` should be a config file, a preset or config keys. Found [1]."),
        ({"datasets": {"a": {"text": "none"}}}, "Grid key `datasets.a` should say where it lies: `data: DIR`."),
    ],
)
def test_what_can_not_be_meant_is_one_line(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as error:
        make_grid(values)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_a_preset_that_nobody_has_offers_the_nearest() -> None:
    with pytest.raises(FileNotFoundError, match="Did you mean the preset `ags-smoe-mosi`"):
        make_grid({**DATA, "base": "ags-smoe-mosy"})


def test_layers_merge_keys_and_replace_other_classes() -> None:
    under = nested({"train.lr": 0.1, "train.epochs": 2, "model.hidden": 8, "model.name": "TFN", "text": "minilm"})
    assert lay(under, nested({"train.lr": 1})) == {**under, "train": {"lr": 1, "epochs": 2}}
    assert lay(under, nested({"model": "TFN"}))["model"] == {"name": "TFN", "hidden": 8}
    assert lay(under, nested({"model": "LMF", "model.rank": 2}))["model"] == {"name": "LMF", "rank": 2}
    assert lay(under, nested({"text.mode": "frozen"}))["text"] == {"encoder": "minilm", "mode": "frozen"}
    assert under["model"] == {"name": "TFN", "hidden": 8}


def test_settings_under_a_word_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`train\.lr\.x`: `lr` holds no keys"):
        nested({"train.lr": 0.1, "train.lr.x": 1})

from __future__ import annotations

from typing import Any

import pytest
import torch

from equipoise.data.shapes import SHAPES
from equipoise.experiments.corpora import CORPORA, instructions
from equipoise.experiments.dotted import put, remove
from equipoise.experiments.reproduction import Reproduction, load, names
from equipoise.models import MODELS

METRICS = {
    "regression": {"mae", "corr", "acc7", "acc5", "acc3", "acc2_nn", "acc2_pn", "f1_nn", "f1_pn"},
    "sims": {"mae", "corr", "acc2", "acc3", "acc5", "f1"},
    "classification": {"accuracy", "f1_weighted", "f1_macro", "nll", "ece"},
}
_BUILT: set[str] = set()


def small(**changes: Any) -> Reproduction:
    values: dict[str, Any] = {
        "name": "x.table1",
        "title": "t",
        "paper": "p",
        "item": "Table 1",
        "columns": {"MAE": "mae", "ACC": "acc2_pn"},
        "datasets": {"mosi": {"corpus": "mosi", "preset": "ags-smoe-mosi"}},
        "rows": [{"name": "all", "published": {"mosi": [0.7, 86.1]}}],
    }
    return Reproduction.model_validate(values | changes)


def test_every_table_and_figure_of_the_five_papers_is_there() -> None:
    wanted = {f"ags-smoe.table{i}" for i in range(1, 9)} | {f"ags-smoe.fig{i}" for i in (2, 6, 7, 8)}
    wanted |= {f"mmafnet.table{i}" for i in (1, 2, 3)} | {"cpsl.ablations"}
    wanted |= {f"agm.table{i}" for i in (1, 2, 3, 4)} | {"agm.fig2"}
    wanted |= {f"glomo.table{i}" for i in (1, 2, 3, 4, 5)} | {f"glomo.fig{i}" for i in (2, 3, 4)}
    assert set(names()) - wanted == {"agm.table1-avletters", "agm.table1-reduced"}
    assert wanted <= set(names())


@pytest.mark.parametrize("name", names())
def test_every_row_is_a_valid_run_on_data_of_its_shape(name: str) -> None:
    table = load(name)
    for dataset, place in table.datasets.items():
        shape = SHAPES[CORPORA[place.corpus].shape]
        kind = "classification" if shape.classes else {"mosi": "regression", "sims": "sims"}[shape.scale]
        for metric in table.columns_of(dataset).values():
            head, _, rest = metric.partition("/")
            if head in ("strength", "own"):
                assert rest.partition("/")[0] in shape.dims
                assert head == "strength" or rest.partition("/")[2] in METRICS[kind]
            else:
                assert metric in METRICS[kind] | {"parameters", "seconds"} or head == "class"
        for row in table.rows_of(dataset):
            if row.absent is not None:
                continue
            config = table.config(row, dataset, data="somewhere", seed=3)
            assert (config.protocol, config.seed) == ("paper", 3)
            assert set(config.modalities or shape.dims) <= set(shape.dims)
            assert row.concept is None or config.modalities == [row.concept]
            assert config.text.encoder is None or (shape.text and "text" in (config.modalities or shape.dims))
            assert config.train.loss == ("cross_entropy" if shape.classes else config.train.loss)
            dims = {m: dim for m, dim in shape.dims.items() if m in (config.modalities or shape.dims)}
            arguments = {
                key: {m: each for m, each in value.items() if m in dims} if isinstance(value, dict) else value
                for key, value in config.model.arguments.items()
            }
            kinds = f"{config.model.name} {sorted(arguments)} {dims} {[each.stage for each in config.balancer]}"
            if kinds in _BUILT:
                continue  # models of one kind differ in sizes
            _BUILT.add(kinds)
            with torch.device("meta"):
                model: Any = MODELS[config.model.name](dims=dims, outputs=shape.classes or 1, **arguments)
            for balancer in config.balancer:
                assert set(model.modalities(balancer.stage).names) >= set(balancer.arguments.get("spared", ()))


@pytest.mark.parametrize("name", names())
def test_rows_of_a_table_differ_in_what_they_run(name: str) -> None:
    """Two rows with one config would print one figure twice as if it were two; a main result may be its own row."""
    table = load(name)
    for dataset in table.datasets:
        configs: dict[str, str] = {}
        for row in table.rows_of(dataset):
            if row.absent is None:
                values = table.config(row, dataset, data="x").model_dump_json() + str(sorted(row.teachers.items()))
                assert values not in configs, (dataset, row.label, configs[values])
                configs[values] = row.label


@pytest.mark.parametrize(
    ("name", "row", "dataset", "figures"),
    [
        ("ags-smoe.table1", "MISA", "mosei", [0.568, 0.724, None, 82.59, 84.23, 82.67, 83.97]),
        ("ags-smoe.table1", "HyCon-BERT", "mosi", [0.713, 0.790, 46.6, None, 85.2, None, 85.1]),
        ("ags-smoe.table2", "AGS-SMoE", "ch-sims", [0.412, 84.28, 84.24, 43.76]),
        ("ags-smoe.table2", "MulT", "ur-funny", [70.55]),
        ("ags-smoe.table3", "w/o Grad_t", "mosi", [0.697, 0.803, 47.08, 84.55, 86.13, 84.49, 86.11]),
        ("ags-smoe.table3", "w/o Grad_all", "mosei", [0.532, 0.762, 54.97, 83.11, 84.89, 83.15, 84.58]),
        ("ags-smoe.table4", "alpha = 0.05", "mosei", [0.517, 85.34, 86.52]),
        ("ags-smoe.table7", "end epoch 4", "mosi", [0.697, 84.69, 86.74]),
        ("ags-smoe.table8", "MMIM + AGS", "mosei", [84.14, 86.38, 84.27, 86.18, 2187.94]),
        ("agm.table1", "OGM-GE (late fusion)", "av-mnist", [71.08, 24.53, 55.85, 0.7445, 0.1617]),
        ("agm.table1", "C_v (early fusion)", "av-mnist", [None, None, 65.46, None, None]),
        ("agm.table2", "AGM (early fusion)", "ur-funny", [66.07, 64.87, 55.20, 63.36, 0.6962, 0.2697, 0.3200]),
        ("agm.table3", "Greedy (late fusion)", "crema-d", [63.08, 43.05, 16.89, 0.4598, 0.7661]),
        ("agm.table4", "PSP (PSP)", "ave", [76.02, 52.58, 50.18, 0.6223, 0.6232]),
        ("agm.table4", "C_t (TBJE)", "mosei", [None, 80.92, None, None, None]),
        ("glomo.table1", "C-MIB", "mosi", [0.728, 0.793, None, 85.2, None, 85.2, 48.2]),
        ("glomo.table2", "GLoMo (BERT)", "mustard", [83.86]),
        ("glomo.table3", "GLoMo", "cherma", [81.73, 81.33, 74.92, 77.48, 70.63, 50.88, 70.13, 73.62]),
        ("glomo.table4", "V+A (role of each modality)", "mosei", [69.6, 65.5, 66.3, 61.0]),
        ("glomo.table4", "ReAt_G (role of guided fusion)", "cherma", [73.35]),
        ("glomo.table5", "C-MIB", "mosi", [109_835_748, 480]),
        ("mmafnet.table1", "MInD", "mosei", [86.6, 86.7, 53.9, 0.529]),
        ("mmafnet.table2", "SGM", "mosei", [85.4, 85.4, 53.5, 0.539]),
        ("mmafnet.table3", "SGM + IPR, 25 epochs", "mosi", [86.6, 86.6, 47.1, 0.698]),
    ],
)
def test_published_figures_are_those_that_the_papers_print(
    name: str, row: str, dataset: str, figures: list[float | None]
) -> None:
    table = load(name)
    found = next(line for line in table.rows if line.label == row)
    assert list(table.published(found, dataset).values()) == figures


@pytest.mark.parametrize("name", names())
def test_published_figures_lie_in_the_units_of_their_columns(name: str) -> None:
    table = load(name)
    for dataset in table.datasets:
        for row in table.rows_of(dataset):
            for column, value in table.published(row, dataset).items():
                metric = table.columns_of(dataset)[column]
                if value is None or metric in ("parameters", "seconds"):
                    continue
                share = metric in ("mae", "corr") or metric.startswith("strength/")
                assert (0 < value < 1.2) if share else (10 < value < 100), (dataset, row.label, column)


def test_the_row_of_the_main_result_is_the_preset() -> None:
    """What Tables 4 to 7 call the paper's setting is what Table 3 prints first."""
    for dataset, alpha, beta, epoch in (("mosi", "0.01", "0.01", 6), ("mosei", "0.05", "0.005", 2)):
        main = load("ags-smoe.table3")
        config = main.config(main.rows[0], dataset, data="x")
        for name, label in (
            ("table4", f"alpha = {alpha}"),
            ("table5", f"beta = {beta}"),
            ("table6", "3 experts"),
            ("table7", f"end epoch {epoch}"),
        ):
            table = load(f"ags-smoe.{name}")
            row = next(each for each in table.rows if each.name == label)
            assert table.config(row, dataset, data="x") == config
            assert table.published(row, dataset)["MAE"] == main.published(main.rows[0], dataset)["MAE"]


def test_a_counterpart_stands_beside_the_figures_of_the_published_set() -> None:
    table = load("agm.table1")
    joint = next(row for row in table.rows if row.label == "Joint-Train (late fusion)")
    assert table.published(joint, "av-mnist-reduced") == table.published(joint, "av-mnist")
    config = table.config(joint, "av-mnist-reduced", data="x")
    assert config.model.arguments["image_shape"]["audio"] == (1, 32, 62)
    assert table.config(joint, "av-mnist", data="x").model.arguments["image_shape"]["audio"] == (1, 112, 112)
    assert "published" not in instructions("av-mnist-reduced").partition("mind")[0]


def test_what_must_be_fetched_has_its_published_checksum() -> None:
    assert "SHA-256: c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f" in instructions("ch-sims")
    for name, corpus in CORPORA.items():
        assert corpus.shape in SHAPES
        assert name in instructions(name)
        assert corpus.checksum is not None or "checksum" in corpus.doubt


@pytest.mark.parametrize(
    ("dotted", "value", "found"),
    [
        ("a.b", 1, {"a": {"b": 1}, "l": [{"n": 1}, {"n": 2}]}),
        ("l.1.n", 5, {"l": [{"n": 1}, {"n": 5}]}),
        ("l.0", "z", {"l": ["z", {"n": 2}]}),
        ("l", "z", {"l": "z"}),
    ],
)
def test_dotted_keys_count_in_lists(dotted: str, value: Any, found: dict[str, Any]) -> None:
    values: dict[str, Any] = {"l": [{"n": 1}, {"n": 2}]}
    put(values, dotted, value)
    assert values == found


def test_a_dotted_key_keeps_the_name_that_stands_there() -> None:
    values: dict[str, Any] = {"model": "TFN"}
    put(values, "model.hidden", 3)
    assert values == {"model": {"name": "TFN", "hidden": 3}}


def test_a_wrong_key_of_a_list_is_named() -> None:
    for wrong in ("l.2.n", "l.n", "l.2"):
        with pytest.raises(ValueError, match=rf"Key `{wrong}` should count in a list"):
            put({"l": [{"n": 1}]}, wrong, 0)
    with pytest.raises(ValueError, match=r"Key `l.1` should count in a list"):
        remove({"l": [1]}, "l.1")
    values: dict[str, Any] = {"l": [1, 2]}
    remove(values, "l.0")
    assert values == {"l": [2]}


def test_bad_declarations_say_what_is_wrong() -> None:
    rows = [{"name": "all", "published": {"mosi": [0.7]}}]
    with pytest.raises(ValueError, match=r"row `all` should hold 2 figures for mosi. Found 1"):
        small(rows=rows)
    with pytest.raises(ValueError, match=r"Found twice: all"):
        small(rows=[{"name": "all"}, {"name": "all"}])
    with pytest.raises(ValueError, match=r"Unknown x.table1: preset of `mosi`: `ags-smoe-mosy`. Did you mean"):
        small(datasets={"mosi": {"corpus": "mosi", "preset": "ags-smoe-mosy"}})
    with pytest.raises(ValueError, match=r"Unknown reproduction: `agm.tabel1`. Did you mean `agm.table1`\?"):
        load("agm.tabel1")
    table = small(rows=[{"name": "all", "set": {"model.layer": 3}}])
    with pytest.raises(ValueError, match=r"^x.table1, row `all`: Unknown config key `model.layer`"):
        table.config(table.rows[0], "mosi", data="x")


def test_figures_that_no_one_printed_are_none() -> None:
    table = small(rows=[{"name": "all"}])
    assert table.published(table.rows[0], "mosi") == {"MAE": None, "ACC": None}

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.layers.tiny_bert import save_tiny_bert

from equipoise.core import SubsetPredict
from equipoise.data import Dataset
from equipoise.data.synthetic import synthetic
from equipoise.metrics import evaluate_metrics
from equipoise.models import AGSSMoE, LateFusion
from equipoise.training.config import RunConfig, make_config
from equipoise.training.evaluate import evaluate, predict
from equipoise.training.prepare import initial_model
from equipoise.training.results import summarise
from equipoise.training.run import load_run, run, run_seeds


def config_for(dataset: Dataset, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "data": str(dataset.path),
        "model": {"name": "LateFusion", "hidden": 4, "encoder": "mean"},
        "train": {"epochs": 3, "batch_size": 8, "lr": 0.05},
    }
    return make_config({**settings, **changes})


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of the paper protocol."""
    out = tmp_path_factory.mktemp("run") / "out"
    return out, run(config_for(dataset, protocol="paper", balancer="ags"), out)


def predictions_of(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_figures_are_those_of_the_predictions_it_wrote(
    dataset: Dataset, finished: tuple[Path, dict[str, Any]]
) -> None:
    out, report = finished
    rows = predictions_of(out)
    assert [row["id"] for row in rows] == dataset.split("test").ids()
    target = [float(row["target"]) for row in rows]
    assert target == dataset.split("test").targets.tolist()
    for column, metrics in [("prediction", report["metrics"])] + [
        (f"prediction/{name}", report["modalities"][name]) for name in dataset.modalities
    ]:
        again = evaluate_metrics("regression", [float(row[column]) for row in rows], target, scale="mosi")
        assert metrics == pytest.approx(again, rel=1e-5)
    low, high = report["interval"]["mae"]
    assert low < report["metrics"]["mae"] < high


def test_it_says_what_it_is(dataset: Dataset, finished: tuple[Path, dict[str, Any]]) -> None:
    out, report = finished
    assert report == json.loads((out / "test.json").read_text())
    assert (report["protocol"], report["seed"], report["balancer"], report["own"]) == ("paper", 0, ["ags"], "head")
    assert report["dataset"]["synthetic"] is True
    assert report["dataset"]["leaks"] is False
    model = load_run(out).model
    assert report["parameters"] == sum(p.numel() for p in model.parameters())


def test_the_paper_protocol_changes_nothing_but_what_is_told(
    dataset: Dataset, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, paper = finished
    honest = run(config_for(dataset, balancer="ags"), tmp_path)
    assert "test_selected" not in honest
    assert honest["metrics"] == paper["metrics"]
    weights = [load_file(folder / "checkpoint/final/best.safetensors") for folder in (out, tmp_path)]
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())
    seen = json.loads((out / "test_by_epoch.json").read_text())
    errors = {int(epoch): one["metrics"]["mae"] for epoch, one in seen.items()}
    chosen = paper["test_selected"]
    assert chosen["epoch"] == min(errors, key=lambda epoch: errors[epoch])
    assert chosen["metrics"]["mae"] == min(errors.values()) <= paper["metrics"]["mae"]
    assert chosen["gap"]["mae"] == chosen["metrics"]["mae"] - paper["metrics"]["mae"]


def test_a_finished_run_is_returned_and_another_config_refused(
    dataset: Dataset, finished: tuple[Path, dict[str, Any]]
) -> None:
    out, report = finished
    before = (out / "test.json").stat().st_mtime_ns
    assert run(config_for(dataset, protocol="paper", balancer="ags", threads=1), out) == report
    assert (out / "test.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"holds a run with `seed = 0`. Found `seed = 1`") as error:
        run(config_for(dataset, protocol="paper", balancer="ags", seed=1), out)
    assert "\n" not in str(error.value)


def test_starting_anew_removes_its_own_files_and_no_others(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    first = run(config_for(dataset), tmp_path)
    again = run(config_for(dataset, seed=1), tmp_path, resume=False)
    assert (first["seed"], again["seed"]) == (0, 1)
    assert first["metrics"] != again["metrics"]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_written_config_makes_the_same_run(
    dataset: Dataset, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    from equipoise.training.config import load_config

    out, report = finished
    again = run(load_config(out / "config.yaml"), tmp_path)
    assert {**again, "seconds_per_epoch": 0} == {**report, "seconds_per_epoch": 0}
    for name in ("metrics.csv", "steps.csv", "predictions.csv", "config.yaml"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_a_loaded_run_says_what_it_said(
    dataset: Dataset, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    trained = load_run(finished[0])
    found = predict(trained.model, trained.dataset.split("test"), modalities=trained.modalities)
    assert found.logits.tolist() == pytest.approx([float(row["prediction"]) for row in predictions_of(finished[0])])
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        load_run(tmp_path)
    shutil.copy(finished[0] / "config.yaml", tmp_path)
    with pytest.raises(ValueError, match="has not finished"):
        load_run(tmp_path)


def test_several_seeds_and_their_spread_by_hand(dataset: Dataset, tmp_path: Path) -> None:
    results = run_seeds(config_for(dataset), tmp_path, [3, 5])
    summary = json.loads((tmp_path / "summary.json").read_text())
    a, b = (result["metrics"]["mae"] for result in results)
    assert a != b
    assert summary["seeds"] == [3, 5]
    assert summary["metrics"]["mae"] == pytest.approx({"mean": (a + b) / 2, "sd": abs(a - b) / 2**0.5})
    assert json.loads((tmp_path / "seed-5" / "test.json").read_text()) == results[1]
    with pytest.raises(ValueError, match="distinct seeds"):
        run_seeds(config_for(dataset), tmp_path, [1, 1])


def test_an_undefined_metric_has_no_mean() -> None:
    shared: dict[str, Any] = {"protocol": "honest", "modalities": {}, "own": "head", "select": "mae"}
    shared |= {"model": "m", "balancer": [], "dataset": {}, "parameters": 1}
    found = summarise([{**shared, "seed": i, "metrics": {"mae": 1.0, "corr": [0.5, None][i]}} for i in range(2)])
    assert found["metrics"] == {"mae": {"mean": 1.0, "sd": 0.0}, "corr": {"mean": None, "sd": None}}


def test_classes_come_with_probabilities(classes: Dataset, tmp_path: Path) -> None:
    report = run(config_for(classes), tmp_path)
    rows = predictions_of(tmp_path)
    columns = [name for name in rows[0] if name.startswith("probability/")]
    assert len(columns) == 3
    for row in rows:
        shares = [float(row[name]) for name in columns]
        assert sum(shares) == pytest.approx(1, abs=1e-6)
        assert int(row["prediction"]) == shares.index(max(shares))
    right = sum(row["prediction"] == row["target"] for row in rows) / len(rows)
    assert report["metrics"]["accuracy"] == pytest.approx(right)


def test_a_setting_for_each_modality_serves_a_run_on_some_of_them(dataset: Dataset, tmp_path: Path) -> None:
    kinds = {name: "mean" if name == "audio" else "pool" for name in dataset.modalities}
    config = config_for(
        dataset, model={"name": "LateFusion", "hidden": 4, "encoder": kinds}, train={"epochs": 1}, modalities=["audio"]
    )
    run(config, tmp_path)
    model = load_run(tmp_path).model
    assert isinstance(model, LateFusion)
    assert {name: type(encoder).__name__ for name, encoder in model.encoders.items()} == {"audio": "MeanEncoder"}

    typo = config_for(dataset, model={"name": "LateFusion", "encoder": {**kinds, "visoin": "mean"}})
    with pytest.raises(ValueError, match="visoin"):
        run(typo, tmp_path / "typo")


def test_without_heads_a_modality_is_kept_alone(dataset: Dataset) -> None:
    torch.manual_seed(0)
    dims = {name: info.dim for name, info in dataset.manifest.modalities.items()}
    model = AGSSMoE(dims=dims, hidden=4, heads=2, layers=1).eval()
    split = dataset.split("test")
    found = evaluate(model, split, batch_size=5)
    assert found.own == "kept"
    batch = split.batch(range(12))
    encoded, muted = model.encode(batch), model.encode(model.normaliser.neutral(batch.muted()))
    whole = model(batch).logits
    torch.testing.assert_close(found.predictions.logits, whole, atol=1e-5, rtol=1e-5)
    assert set(found.predictions.unimodal) == set(dims)
    alone = SubsetPredict(lambda parts: model.fuse(parts).logits, encoded, muted)(frozenset({"text"}))
    large = evaluate(model, split, batch_size=12).predictions.unimodal["text"]
    torch.testing.assert_close(large, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone, whole)


def test_predictions_keep_the_order_of_the_split_and_the_mode_of_the_model(dataset: Dataset) -> None:
    trained_on = {name: info.dim for name, info in dataset.manifest.modalities.items()}
    model = AGSSMoE(dims=trained_on, hidden=4, heads=2, layers=1, dropout=0.5).train()
    small, large = (predict(model, dataset.split("train"), batch_size=size) for size in (3, 42))
    torch.testing.assert_close(small.logits, large.logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(small.target, torch.from_numpy(dataset.split("train").targets))
    assert model.training


@pytest.mark.filterwarnings("ignore:Metric `corr` is NaN")
@pytest.mark.parametrize("mode", ["finetune", "frozen"])
def test_text_through_an_encoder(dataset: Dataset, tmp_path: Path, mode: str) -> None:
    folder = save_tiny_bert(tmp_path / "bert")
    text = {"encoder": str(folder), "mode": mode, "lr": 1e-3, "max_tokens": 16}
    run(config_for(dataset, text=text, modalities="text, audio"), tmp_path / "run")
    trained = load_run(tmp_path / "run")
    names = {name for name, _ in trained.model.named_parameters() if name.startswith("text_encoder")}
    assert bool(names) == (mode == "finetune")
    assert trained.modalities == ("text", "audio")
    dim = trained.dataset.manifest.modalities["text"].dim
    assert (dim == 0) == (mode == "finetune")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "nowhere"}, "nowhere is no dataset"),
        ({"modalities": ["text", "vidio"]}, "Unknown modality `vidio`. Did you mean `vision`?"),
        ({"modalities": ["audio"], "balancer": "ags"}, "needs at least two modalities. Found audio alone"),
        ({"modalities": ["audio"], "text": "minilm"}, "needs the modality text"),
        ({"balancer": {"name": "ags", "stage": "middle"}}, 'should be "encoders" or "heads"'),
        ({"balancer": {"name": "ags", "alpha": -1}}, "`alpha` should be non-negative"),
        ({"train": {"select": "accuracy"}}, "`select` should be one of mae"),
        ({"train": {"select": "accurac"}}, "`select` should be one of mae"),
        ({"model": "AGSSMoE", "balancer": ["ags", "ogm_ge"]}, "OGMGE needs `unimodal`, which this AGSSMoE does not"),
        ({"model": {"name": "LateFusion", "hidden": 0}}, "LateFusion can't be built with `model = {'hidden': 0}`"),
        ({"model": {"name": "LateFusion", "hidden": 10**12}}, "LateFusion can't be built with `model = {'hidden': 10"),
    ],
)
def test_what_does_not_fit_is_told_before_training(
    dataset: Dataset, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        run(config_for(dataset, **changes), tmp_path / "run")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "steps.csv").exists()
    assert not (tmp_path / "run" / "config.yaml").exists()  # so that the corrected config may take the directory


def test_transcripts_are_asked_for(classes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reads transcripts, and .* has none"):
        run(config_for(classes, text="minilm"), tmp_path)


def test_a_missing_split_is_told(tmp_path: Path) -> None:
    whole = synthetic(tmp_path / "whole", n=20)
    part = whole.with_splits(tmp_path / "part", ["train"] * 15 + ["test"] * 5)
    with pytest.raises(ValueError, match=r"Found no valid. Make them with `equipoise data split .*part --to DIR`"):
        run(config_for(part), tmp_path / "run")


def test_a_single_class_is_nothing_to_learn(tmp_path: Path) -> None:
    from equipoise.data import write_dataset

    splits = ["train", "valid", "test"]
    data = write_dataset(
        tmp_path / "one",
        name="one",
        source="hand",
        task="classification",
        modalities={"text": [torch.ones(1, 1).numpy()] * 3},
        labels=torch.zeros(3, dtype=torch.int64).numpy(),
        ids=splits,
        splits=splits,
    )
    with pytest.raises(ValueError, match=r"should have at least two classes. Found \('0',\)"):
        run(config_for(data), tmp_path / "run")


def test_a_run_that_diverged_at_once_leaves_the_directory_to_the_next(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Training diverged"):
        run(config_for(dataset, train={"epochs": 2, "lr": 1e30}), tmp_path)
    found = run(config_for(dataset), tmp_path)
    assert found["epochs"] == 3
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4


def test_the_same_place_by_another_name_is_the_same_run(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished[0], tmp_path / "moved")
    config = make_config({**json_of(finished[0]), "data": json_of(finished[0])["data"] + "/."})
    assert run(config, tmp_path / "moved") == finished[1]
    with pytest.raises(ValueError, match=r"If the dataset was only moved, change `data` in .*config\.yaml"):
        run(config.model_copy(update={"data": "elsewhere"}), tmp_path / "moved")


def json_of(out: Path) -> dict[str, Any]:
    from equipoise.training.config import load_config

    return load_config(out / "config.yaml").model_dump(mode="json")


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("test.json", "", r"test\.json is not JSON"),
        ("test.json", "{}", r"test\.json should hold a JSON object"),
        ("config.yaml", "nonsense", r"config\.yaml is no config of a run \(.*should hold a mapping"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, file: str, content: str, line: str
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    with pytest.raises(ValueError, match=line):
        run(make_config(json_of(finished[0])), tmp_path / "run")
    (tmp_path / "run" / file).unlink()
    again = run(make_config(json_of(finished[0])), tmp_path / "run")  # all it needs is in the checkpoint
    assert again["metrics"] == finished[1]["metrics"]


def test_a_modality_that_no_test_sample_has_is_told(tmp_path: Path) -> None:
    from equipoise.data import write_dataset

    generator = torch.Generator().manual_seed(0)
    splits = ["train"] * 10 + ["valid"] * 4 + ["test"] * 4
    frames = {name: [torch.randn(2, 3, generator=generator).numpy() for _ in splits] for name in ("text", "audio")}
    frames["audio"][-4:] = [frame[:0] for frame in frames["audio"][-4:]]
    data = write_dataset(
        tmp_path / "data",
        name="hand",
        source="hand",
        task="regression",
        modalities=frames,
        labels=torch.randn(18, generator=generator).numpy(),
        ids=[str(i) for i in range(18)],
        splits=splits,
    )
    with pytest.warns(UserWarning, match="Metric `corr` is NaN"):
        found = run(config_for(data), tmp_path / "run")
    assert found["warnings"] == ["no sample of the split has audio, so its own figures are those of a constant."]


def test_the_model_that_a_run_started_with_can_be_built_again(dataset: Dataset, tmp_path: Path) -> None:
    still = {"epochs": 1, "lr": 1e-30, "weight_decay": 0.0, "optimizer": "sgd", "momentum": 0.0}
    config = make_config(
        {"data": str(dataset.path), "model": {"hidden": 4, "encoder": "mean"}, "train": still, "seed": 3}
    )
    run(config, tmp_path)
    trained = load_run(tmp_path)
    torch.manual_seed(99)
    start = initial_model(config, trained.dataset, trained.modalities).state_dict()
    assert all(torch.equal(start[name], value) for name, value in trained.model.state_dict().items())
    other = initial_model(config.model_copy(update={"seed": 4}), trained.dataset, trained.modalities).state_dict()
    assert any(not torch.equal(start[name], value) for name, value in other.items())

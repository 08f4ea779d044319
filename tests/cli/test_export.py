from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from tests.layers.tiny_bert import save_tiny_bert
from torch import nn

from equipoise.cli.main import main
from equipoise.data import synthetic
from equipoise.report.export import forget
from equipoise.training.pretrained import from_pretrained
from equipoise.training.run import load_run


def told(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def exported(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("models") / "best"
    assert main(["export", str(small_runs), "--to", str(to)]) == 0
    return to


def best_seed(runs: Path) -> int:
    """The seed with the least validation error at its chosen epoch, from the tables alone."""
    scores = {}
    for seed in (0, 1):
        folder = runs / f"seed-{seed}"
        epoch = json.loads((folder / "test.json").read_text())["epoch"]
        with (folder / "metrics.csv").open() as file:
            scores[seed] = next(float(row["valid/mae"]) for row in csv.DictReader(file) if row["epoch"] == str(epoch))
    return min(scores, key=lambda seed: scores[seed])


def test_the_weights_are_those_of_the_seed_that_validation_prefers(small_runs: Path, exported: Path) -> None:
    model, info = from_pretrained(exported)
    seed = best_seed(small_runs)
    assert (info.run["seed"], info.run["seeds"]) == (seed, [0, 1])
    expected = load_run(small_runs / f"seed-{seed}").model.state_dict()
    assert model.state_dict().keys() == expected.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_the_saved_model_scores_as_the_run_did(
    small_runs: Path, small_data: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = told(capsys, "evaluate", str(exported), "--data", str(small_data))["results"]
    stored = json.loads((small_runs / f"seed-{best_seed(small_runs)}" / "test.json").read_text())
    for key in ("metrics", "interval", "modalities", "loss", "own", "seed", "model", "balancer", "epoch", "dataset"):
        assert found[key] == stored[key]
    (less,) = told(capsys, "evaluate", str(exported), "--data", str(small_data), "--drop", "audio")["results"]
    assert less["modalities_used"] == ["text", "vision"]
    assert less["metrics"] != found["metrics"]


def test_the_card_has_the_figures_of_the_summary(small_runs: Path, exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    data: Any = card.data
    summary = json.loads((small_runs / "summary.json").read_text())["metrics"]
    values = {each.metric_type: each.metric_value for each in data.eval_results}
    assert values == {name: pytest.approx(each["mean"], abs=1e-6) for name, each in summary.items()}
    assert f"| mae | {summary['mae']['mean']:.3f} ± {summary['mae']['sd']:.3f} |" in card.text
    assert "[synthetic data]" in card.text


def test_a_seed_by_name(small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = 1 - best_seed(small_runs)
    made = told(capsys, "export", str(small_runs), "--to", str(tmp_path / "x"), "--seed", str(other))
    assert (made["seed"], made["seeds"], made["page"]) == (other, [0, 1], None)
    assert [row["modality"] for row in made["contributions"]] == ["text", "audio", "vision"]
    assert from_pretrained(tmp_path / "x")[1].run["seed"] == other
    assert f"seed {other}, chosen by hand" in (tmp_path / "x" / "README.md").read_text()


def test_a_fine_tuned_encoder_and_a_moved_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bert, data, run, to = (str(tmp_path / name) for name in ("bert", "data", "run", "saved"))
    save_tiny_bert(tmp_path / "bert")
    synthetic(tmp_path / "data", n=30, dims={"text": 4, "audio": 4}, text=True)
    settings = ["--text", bert, "--text.max_tokens", "20", "--model.hidden", "4", "--model.encoder", "mean"]
    assert main(["train", "--data", data, "--out", run, *settings, "--train.epochs", "1"]) == 0
    (stored,) = told(capsys, "evaluate", run)["results"]
    assert main(["export", run, "--to", to]) == 0
    shutil.rmtree(bert)
    shutil.rmtree(run)
    (tmp_path / "data").rename(tmp_path / "moved")
    (found,) = told(capsys, "evaluate", to, "--data", str(tmp_path / "moved"))["results"]
    assert found["metrics"] == stored["metrics"]
    card = (tmp_path / "saved" / "README.md").read_text()
    assert str(tmp_path) not in card
    assert "transcripts, by bert, fine-tuned, ≤ 20 tokens" in card


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one line that a command leaves on standard error with exit code 2."""
    capsys.readouterr()
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


def test_what_can_not_be_exported_is_one_line(
    small_runs: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, to = str(small_runs), str(tmp_path / "y")
    assert "is there already: replace it" in refused(capsys, "export", runs, "--to", str(exported))
    assert "`seed` should be one of [0, 1]" in refused(capsys, "export", runs, "--to", to, "--seed", "9")
    assert "none holds no finished run" in refused(capsys, "export", str(tmp_path / "none"), "--to", to)
    assert "--to" in refused(capsys, "export", runs)
    assert not (tmp_path / "y").exists()


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(40))


def newer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "version": 7}))


def foreign(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (cut, "model.safetensors should be the file that was saved"),
        (newer, "should have version 1. Found 7"),
        (foreign, "is no model that equipoise saved"),
    ],
)
def test_what_is_no_saved_model_is_one_line(
    change: Callable[[Path], object],
    part: str,
    small_data: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "broken"))
    change(folder)
    assert part in refused(capsys, "evaluate", str(folder), "--data", str(small_data))


def test_a_saved_model_needs_data_that_fit(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Name one: `--data DIR`" in refused(capsys, "evaluate", str(exported))
    synthetic(tmp_path / "other", n=20, dims={"text": 8})
    err = refused(capsys, "evaluate", str(exported), "--data", str(tmp_path / "other"), "--drop", "audio", "vision")
    assert "Modality text should be 32 wide, as in training. Found 8." in err


def test_a_push_without_a_hub_is_one_line_and_the_folder_stays(
    small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The test run sets HF_HUB_OFFLINE before the hub's client is imported.
    to = tmp_path / "kept"
    assert main(["export", str(small_runs / "seed-0"), "--to", str(to), "--push", "lab/films"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "can't be pushed to 'lab/films': HF_HUB_OFFLINE is set. The folder is complete: push it later." in err
    assert from_pretrained(to)[1].run["seed"] == 0


class Memory(nn.Module):
    """What a model remembers of its training samples."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("labels", torch.ones(5))

    def forget(self) -> None:
        self.labels = torch.empty(0)


def test_training_samples_are_not_published() -> None:
    model = nn.Sequential(nn.Linear(2, 1), Memory())
    forget(model)
    assert model[1].get_buffer("labels").numel() == 0

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_checkpoint import disk_of

from equipoise.balancers import AGM
from equipoise.data import Dataset
from equipoise.models import LateFusion
from equipoise.training.loop import fit

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("balancer", "train"),
    [
        ({"name": "agm", "alpha": 1.0}, {"optimizer": "adamw", "scheduler": "cosine", "checkpoint_every": 3}),
        ({"name": "ogm_ge", "alpha": 1.0}, {"optimizer": "sgd", "accumulate": 2, "checkpoint_every": 1}),
    ],
    ids=["agm", "ogm_ge"],
)
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(
    dataset: Dataset, tmp_path: Path, balancer: dict[str, Any], train: dict[str, Any]
) -> None:
    config = {
        "data": str(dataset.path),
        "model": {"name": "LateFusion", "hidden": 4, "encoder": "mean", "dropout": 0.3},
        "balancer": balancer,
        "train": {"epochs": 5, "batch_size": 4, "lr": 0.01, **train},
        "protocol": "paper",
        "threads": 1,
    }
    command = [sys.executable, "-m", "tests.training.kill_and_resume", json.dumps(config), str(tmp_path), "4", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(set(found["killed"])) > 1, "choose settings under which kills fall on different checkpoints"
    assert found["rough"] == found["calm"]


class Killed(Exception):
    pass


def train(
    dataset: Dataset, model: LateFusion, folder: Path, progress: Callable[..., None] | None = None, *, every: int = 4
) -> dict[str, torch.Tensor]:
    fit(
        model,
        train=dataset.split("train"),
        valid=dataset.split("valid"),
        balancer=AGM(model.modalities(), alpha=1.0),
        epochs=3,
        batch_size=8,
        checkpoint_every=every,
        run_dir=folder,
        progress=progress,
    )
    return model.state_dict()


@pytest.fixture(scope="module")
def calm(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """An undisturbed run of 3 epochs of 6 steps."""
    folder = tmp_path_factory.mktemp("calm")
    return folder, train(dataset, fresh_model(dataset), folder)


def fresh_model(dataset: Dataset) -> LateFusion:
    torch.manual_seed(0)
    dims = {name: info.dim for name, info in dataset.manifest.modalities.items()}
    return LateFusion(dims=dims, hidden=4, encoder="mean", dropout=0.3)


def assert_same(folder: Path, weights: dict[str, torch.Tensor], calm: tuple[Path, dict[str, torch.Tensor]]) -> None:
    assert all(torch.equal(weights[name], value) for name, value in calm[1].items())
    for table in ("metrics.csv", "steps.csv"):
        assert (folder / table).read_bytes() == (calm[0] / table).read_bytes()


def stop_at(last: int) -> Callable[..., None]:
    def progress(step: int, *_: object) -> None:
        if step == last:
            raise Killed

    return progress


@pytest.mark.parametrize("last", [1, 4, 5, 6, 7, 11, 12, 17])
def test_every_step_can_be_the_last_before_a_resume(
    dataset: Dataset, tmp_path: Path, calm: tuple[Path, dict[str, torch.Tensor]], last: int
) -> None:
    with pytest.raises(Killed):
        train(dataset, fresh_model(dataset), tmp_path, stop_at(last))
    assert_same(tmp_path, train(dataset, fresh_model(dataset), tmp_path), calm)


def test_without_checkpoints_a_stopped_run_starts_anew_and_ends_the_same(
    dataset: Dataset, tmp_path: Path, calm: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    with pytest.raises(Killed):
        train(dataset, fresh_model(dataset), tmp_path, stop_at(17), every=0)
    assert not (tmp_path / "checkpoint").exists()
    assert_same(tmp_path, train(dataset, fresh_model(dataset), tmp_path, every=0), calm)
    assert [folder.name for folder in (tmp_path / "checkpoint").iterdir() if folder.is_dir()] == ["final"]


@pytest.mark.parametrize("size", [100, 1000, 6000])
def test_a_disk_that_fills_up_stops_the_run_in_one_line_and_it_goes_on_from_there(
    dataset: Dataset, tmp_path: Path, calm: tuple[Path, dict[str, torch.Tensor]], size: int
) -> None:
    with ExitStack() as stack:

        def fill(step: int, *_: object) -> None:
            if step == 9:  # two checkpoints are there
                stack.enter_context(disk_of(size))

        with pytest.raises(OSError, match="File too large") as error:
            train(dataset, fresh_model(dataset), tmp_path, fill)
    assert "\n" not in str(error.value)
    assert_same(tmp_path, train(dataset, fresh_model(dataset), tmp_path), calm)


def test_a_table_that_lost_rows_is_not_built_on(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(dataset, fresh_model(dataset), tmp_path, stop_at(8))
    (tmp_path / "steps.csv").write_text("step\n")
    with pytest.raises(ValueError, match=r"steps\.csv should hold at least \d+ bytes, as its checkpoint says"):
        train(dataset, fresh_model(dataset), tmp_path)


def test_a_table_with_other_columns_is_not_built_on(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(dataset, fresh_model(dataset), tmp_path, stop_at(8))
    table = tmp_path / "steps.csv"
    table.write_text(table.read_text().replace("norm_after/text", "norm_later/text", 1))
    with pytest.raises(ValueError, match=r"steps\.csv was written by another version of equipoise"):
        train(dataset, fresh_model(dataset), tmp_path)


def test_another_model_does_not_fit_the_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(dataset, fresh_model(dataset), tmp_path, stop_at(8))
    dims = {name: info.dim for name, info in dataset.manifest.modalities.items()}
    with pytest.raises(ValueError, match="does not fit this LateFusion"):
        train(dataset, LateFusion(dims=dims, hidden=5, encoder="mean"), tmp_path)

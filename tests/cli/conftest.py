from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.cli.main import main
from equipoise.data import synthetic

SMALL = ("--model.hidden", "4", "--model.encoder", "mean", "--train.epochs", "2", "--train.batch_size", "16")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty synthetic utterances."""
    path = tmp_path_factory.mktemp("data") / "small"
    synthetic(path, n=60, seed=3)
    return path


@pytest.fixture(scope="session")
def small_runs(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a balanced model, trained through the command line."""
    out = tmp_path_factory.mktemp("runs") / "two"
    command = ["train", "--data", str(small_data), "--out", str(out), "--balancer", "ags", "--seeds", "0", "1", *SMALL]
    assert main(command) == 0
    return out

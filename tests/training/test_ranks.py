"""Two processes (gloo) train as one: equal weights on both ranks, and those of one process up to float32 rounding."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.two_ranks import NAMES

from equipoise.data import Dataset

ROOT = Path(__file__).resolve().parents[2]


def launch(data: Path, out: Path, world: int) -> list[dict[str, str]]:
    """The digests that each rank printed."""
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in range(world):
        env = {**os.environ, "ACCELERATE_USE_CPU": "true"}
        if world > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "tests.training.two_ranks", str(data), str(out)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        ranks.append(subprocess.Popen(command, cwd=ROOT, env=env, **pipes))
    found = []
    for process in ranks:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        found.append(json.loads(output.splitlines()[-1]))
    return found


@pytest.fixture(scope="module")
def runs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("ranks")
    digests = launch(dataset.path, folder / "two", 2)
    launch(dataset.path, folder / "one", 1)
    return folder / "one", folder / "two", digests


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_equal_each_other_and_one(runs: tuple[Path, Path, list[dict[str, str]]], name: str) -> None:
    one, two, digests = runs
    assert digests[0][name] == digests[1][name]
    expected, found = load_file(one / f"{name}.safetensors"), load_file(two / f"{name}.safetensors")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_rank_alone_writes(runs: tuple[Path, Path, list[dict[str, str]]], name: str) -> None:
    for table in ("steps.csv", "metrics.csv"):
        rows = []
        for folder in runs[:2]:
            with (folder / name / table).open() as file:
                rows.append(list(csv.DictReader(file)))
        one, two = rows
        assert len(two) == len(one) == (6 if table == "steps.csv" else 2)
        for found, expected in zip(two, one, strict=True):
            for column in ("loss", "norm/text", "factor/text", "train_loss", "valid/mae"):
                if expected.get(column):
                    assert float(found[column]) == pytest.approx(float(expected[column]), rel=1e-4)

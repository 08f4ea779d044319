"""What docs/training.md tells the reader to type for several ranks, typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from equipoise.cli.main import main
from equipoise.training.accelerator import make_accelerator

ROOT = Path(__file__).resolve().parents[2]
LINE = "torchrun --standalone --nproc_per_node 2 -m equipoise"
# Without dropout, whose noise differs by rank, and with a balancer whose scores are summed over the ranks.
SETTINGS = """
model: {name: LateFusion, hidden: 4, encoder: mean, dropout: 0.0}
balancer: {name: agm, alpha: 0.5}
train: {epochs: 2, batch_size: 9, accumulate: 2, clip: 0.5}
"""


def test_torchrun_trains_on_two_ranks_as_one_process_does(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"data: {small_data}\n{SETTINGS}")
    assert main(["train", str(config), "--out", str(tmp_path / "one")]) == 0
    alone = capsys.readouterr().out

    assert f"`{LINE} train run.yaml`" in (ROOT / "docs/training.md").read_text(encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", *LINE.split()[1:]]
    free = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    ranks = subprocess.run(
        [*command, "train", str(config), "--out", str(tmp_path / "two")],
        env={**free, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ranks.returncode == 0, ranks.stderr
    assert ranks.stdout.count("Run directory: ") == 1  # one rank speaks
    assert ranks.stdout.splitlines()[0] == alone.splitlines()[0]
    assert ranks.stderr.count("step 6/6") == 1

    weights = [load_file(tmp_path / name / "checkpoint/final/best.safetensors") for name in ("one", "two")]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=1e-5, rtol=1e-5)
    one, two = (json.loads((tmp_path / name / "test.json").read_text()) for name in ("one", "two"))
    assert two["metrics"]["mae"] == pytest.approx(one["metrics"]["mae"], rel=1e-5)
    assert two["epoch"] == one["epoch"]


def test_ranks_that_accelerate_does_not_see_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make_accelerator()  # as on a device without ranks, Accelerate's mind is made up: one process
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"The launcher started 2 processes; Accelerate can use 1 of them"):
        make_accelerator()

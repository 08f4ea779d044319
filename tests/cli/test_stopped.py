"""Ctrl-C on a grid, as a terminal sends it: to the whole process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise.cli.main import main
from equipoise.experiments.store import Store

LINE = "equipoise: stopped. The same command goes on where it was."


def words(data: Path, out: Path) -> list[str]:
    small = ["--model.hidden", "4", "--model.encoder", "mean", "--train.epochs", "1", "--train.batch_size", "4"]
    grid = ["--data", str(data), "--out", str(out), "--seeds", *map(str, range(8)), "--no-controls"]
    return ["compare", *grid, *small]


def started(line: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "equipoise", *line, "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # the tests' own may ignore it
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def alive(session: int) -> dict[int, str]:
    """The command lines of a session's processes."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, *_, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state not in "XZ":
                found[int(folder.name)] = (folder / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def stopped(process: subprocess.Popen[str], ready: Callable[[], bool], signals: int) -> list[str]:
    """What is said on standard error by a command that is sent so many signals as soon as it is ready."""
    while not ready() and process.poll() is None:
        time.sleep(0.01)
    for _ in range(signals):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.03)
        if process.poll() is not None:
            break
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert out == ""
    deadline = time.monotonic() + 20
    while alive(process.pid) and time.monotonic() < deadline:  # who is to end has been told so
        time.sleep(0.02)
    assert alive(process.pid) == {}
    return [line for line in err.splitlines() if "to go" not in line and "trying out" not in line]


@pytest.mark.parametrize("signals", [1, 12])
def test_ctrl_c_while_the_workers_load_is_one_line(small_data: Path, tmp_path: Path, signals: int) -> None:
    process = started(words(small_data, tmp_path / "out"))
    said = stopped(process, lambda: any("forkserver" in line for line in alive(process.pid).values()), signals)
    assert said == [LINE]
    assert Store(tmp_path / "out").ids() == set()
    assert Store(tmp_path / "out").ids("failed") == set()


def test_many_ctrl_c_while_workers_train_lose_nothing(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, store = words(small_data, tmp_path / "out"), Store(tmp_path / "out")
    process = started(line)
    assert stopped(process, lambda: len(store.ids()) > 1, 12) == [LINE]
    kept = {path: path.stat().st_mtime_ns for path in (store.root / "done").iterdir()}
    assert 1 < len(kept) < 8
    assert all(store.read(path.stem)["result"]["metrics"] for path in kept)
    assert store.ids("failed") == set()
    assert main([*line, "--jobs", "1", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["done"] for cell in cells] == [True] * 8
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in (store.root / "done").iterdir()}.items()

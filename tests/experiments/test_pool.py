from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.stub_work import Stub, die_once, noted, square, square_or_fail, square_or_sleep, wait_for_file

from equipoise.experiments.pool import run_cells
from equipoise.experiments.store import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="fork")
def _fork() -> BaseContext:
    return multiprocessing.get_context("fork")


@pytest.fixture(scope="module", name="killed")
def _killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A thousand cells, twenty kills: of the scheduler, and of a worker, in turn."""
    folder = tmp_path_factory.mktemp("killed") / "store"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.experiments.kill_and_go_on", str(folder), "1000", "20", "7"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_thousand_cells_survive_twenty_kills(killed: dict[str, Any]) -> None:
    assert killed["status"] == 0
    assert killed["hit"] == {"scheduler": 10, "worker": 10}
    assert killed["squares"] == [number**2 for number in range(1000)]
    assert killed["failed"] == []


def test_no_finished_cell_is_lost_or_run_twice(killed: dict[str, Any]) -> None:
    assert killed["kept"] > 100  # results were there to be lost
    assert killed["lost"] == []
    assert killed["again"] == []
    assert 1000 <= killed["begun"] <= 1000 + 20 * 2  # a kill costs what was running
    assert killed["rubbish"] == []


def test_scheduling_a_thousand_cells_costs_little_and_memory_stays_flat(killed: dict[str, Any]) -> None:
    assert killed["undisturbed"]["cells"] == 1000
    assert killed["undisturbed"]["milliseconds_per_cell"] < 10
    assert killed["undisturbed"]["grown_kib"] < 1024  # over the last 700: 1.5 KiB a cell


def test_what_fails_is_recorded_and_the_rest_go_on(tmp_path: Path, fork: BaseContext) -> None:
    store, told = Store(tmp_path), []
    cells = [Stub(number) for number in range(6)]
    work = partial(square_or_fail, store)
    run_cells(
        cells, work, store, jobs=2, context=fork, told=lambda cell, what, seconds: told.append((cell.number, what))
    )
    assert store.ids() == {cells[i].id for i in (0, 2, 3, 5)}
    assert store.ids("failed") == {cells[i].id for i in (1, 4)}
    error = store.read(cells[4].id)
    assert error["error"] == "4 leaves 1."
    assert error["number"] == 4
    assert "square_or_fail" in error["traceback"]
    assert sorted(told) == sorted(
        [(i, "start") for i in range(6)] + [(i, "failed" if i % 3 == 1 else "done") for i in range(6)]
    )
    before = noted(store)
    run_cells(cells, work, store, context=fork)
    assert noted(store) == before  # neither results nor errors run again by themselves
    store.forget(cells[1].id)
    run_cells(cells, partial(square, store), store, context=fork)
    assert noted(store) == [*before, f"begun {cells[1].id}"]
    assert store.read(cells[1].id)["result"] == {"metrics": {"square": 1}}


def test_a_worker_that_is_killed_costs_its_cell_an_attempt(tmp_path: Path, fork: BaseContext) -> None:
    store = Store(tmp_path)
    cells = [Stub(number) for number in range(4)]
    run_cells(cells, partial(die_once, store), store, jobs=2, attempts=3, context=fork)
    assert store.ids() == {cells[i].id for i in (0, 1, 3)}
    assert noted(store).count(f"begun {cells[1].id}") == 2
    assert noted(store).count(f"begun {cells[2].id}") == 3
    assert store.read(cells[2].id)["error"] == "Its process died 3 times, the last time by signal SIGKILL."


def test_a_cell_that_another_process_holds_is_left_to_it(tmp_path: Path, fork: BaseContext) -> None:
    store, gate = Store(tmp_path), tmp_path / "gate"
    cells = [Stub(0), Stub(1)]
    other: Any = fork.Process(target=_hold, args=(tmp_path, gate))  # type: ignore[attr-defined]
    other.start()
    while not noted(store):
        pass
    threading.Timer(0.2, gate.touch).start()
    run_cells(cells, partial(square, store), store, context=fork)
    other.join()
    assert sorted(noted(store)) == [f"begun {cell.id}" for cell in cells]
    assert store.ids() == {cell.id for cell in cells}


def _hold(root: Path, gate: Path) -> None:
    store = Store(root)
    run_cells([Stub(0)], partial(wait_for_file, gate, store), store, context=multiprocessing.get_context("fork"))


def test_a_cell_over_the_limit_is_ended_and_recorded_and_the_rest_go_on(tmp_path: Path, fork: BaseContext) -> None:
    store, told = Store(tmp_path), []
    cells = [Stub(number) for number in range(5)]
    run_cells(
        cells,
        partial(square_or_sleep, store),
        store,
        jobs=2,
        limit_seconds=0.3,
        context=fork,
        told=lambda cell, what, seconds: told.append((cell.number, what, seconds)),
    )
    assert store.ids() == {cells[i].id for i in (0, 2, 4)}
    assert store.ids("failed") == {cells[i].id for i in (1, 3)}
    record = store.read(cells[1].id)
    assert record["error"] == "It was ended: it took longer than 0.3 s."
    assert 0.3 <= record["seconds"] < 30
    assert len(noted(store)) == len(cells)  # no second attempt
    assert [what for number, what, _ in told if number == 3] == ["start", "died", "failed"]


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_no_time_is_refused(tmp_path: Path, limit: float) -> None:
    with pytest.raises(ValueError, match=rf"`limit_seconds` should be above 0\. Found `limit_seconds = {limit}`\."):
        run_cells([Stub(0)], partial(square, Store(tmp_path)), Store(tmp_path), limit_seconds=limit)


def test_no_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`jobs` should be 1 or more\. Found `jobs = 0`\."):
        run_cells([Stub(0)], partial(square, Store(tmp_path)), Store(tmp_path), jobs=0)

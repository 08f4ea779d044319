"""With real Ray processes on loopback; nothing stands in for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.landscape import tuned_grid
from tests.experiments.ray_here import tiny_cell
from tests.experiments.stub_work import (
    Stub,
    die_once,
    lose_parent_once,
    noted,
    square,
    square_of_one_folder,
    square_or_sleep,
    wait_noting_parent,
)

from equipoise.data import synthetic
from equipoise.experiments.pool import run_cells
from equipoise.experiments.ray_engine import connected
from equipoise.experiments.store import Store
from equipoise.experiments.train import train_cells

ROOT = Path(__file__).resolve().parents[2]
NODE: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
SETTINGS = {
    "worker_niceness": 0,
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 5,
}

pytestmark = [
    # Not `importorskip`: Ray reads where to listen when it is imported.
    pytest.mark.skipif(find_spec("ray") is None, reason='needs `pip install "equipoise[ray]"`'),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's own files
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module", name="elsewhere")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the nodes work."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module", name="cluster")
def _cluster(elsewhere: Path) -> Iterator[Any]:
    """One node of one CPU, and this process as its driver."""
    here = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        from ray.cluster_utils import Cluster

        os.chdir(elsewhere)
        try:
            cluster = Cluster(True, head_node_args={**NODE, "_system_config": SETTINGS})
        finally:
            os.chdir(here)
        with connected(2, cluster.address):  # once for all tests: a driver's processes load torch anew
            yield cluster
        cluster.shutdown()  # type: ignore[no-untyped-call]


def test_workers_that_are_lost_cost_their_cell_an_attempt(tmp_path: Path, cluster: Any) -> None:
    store, cells = Store(tmp_path / "a"), [Stub(number) for number in range(4)]
    run_cells(cells, partial(lose_parent_once, store), store, jobs=2, engine="ray", address=cluster.address)
    assert store.ids() == {cell.id for cell in cells}
    assert sorted(noted(store)) == sorted(f"begun {cells[i].id}" for i in (0, 1, 1, 2, 3))
    store = Store(tmp_path / "b")
    run_cells(cells, partial(die_once, store), store, jobs=2, engine="ray", address=cluster.address)
    assert store.ids() == {cells[i].id for i in (0, 1, 3)}
    assert store.read(cells[2].id)["error"] == "Its process died 3 times, the last time by signal SIGKILL."
    assert [path.name for path in store.root.glob(".*")] == []


def test_a_cell_over_the_limit_is_ended_on_its_node(tmp_path: Path, cluster: Any) -> None:
    store, cells = Store(tmp_path), [Stub(number) for number in range(3)]
    run_cells(
        cells,
        partial(square_or_sleep, store),
        store,
        jobs=2,
        limit_seconds=0.5,
        engine="ray",
        address=cluster.address,
    )
    assert store.ids() == {cells[0].id, cells[2].id}
    assert store.read(cells[1].id)["error"] == "It was ended: it took longer than 0.5 s."


def test_results_come_back_from_a_node_that_does_not_see_the_store(
    tmp_path: Path, cluster: Any, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Where the driver works is no folder of the node's, as on another machine.
    monkeypatch.setattr("equipoise.experiments.ray_engine._folder", lambda: "/nowhere")
    store, cells = Store("results"), [Stub(number) for number in range(3)]
    work = partial(square_of_one_folder, elsewhere, store)
    run_cells(cells, work, store, jobs=2, engine="ray", address=cluster.address)
    assert store.ids() == {cell.id for cell in cells}
    theirs = Store(elsewhere / "results")
    for cell in cells:
        assert [path.name for path in store.run_dir(cell.id).iterdir()] == ["predictions.csv"]
        assert (store.run_dir(cell.id) / "predictions.csv").read_text() == str(cell.number)
        assert store.read(cell.id) == theirs.read(cell.id)
    (store.root / "done" / f"{cells[0].id}.json").unlink()  # as if the driver had died before it wrote
    run_cells(cells, work, store, engine="ray", address=cluster.address)
    assert store.read(cells[0].id) == theirs.read(cells[0].id)  # not run again


def test_a_node_that_joins_takes_part_and_one_that_is_lost_costs_its_cell_an_attempt(
    tmp_path: Path, cluster: Any
) -> None:
    store, cells, lost = Store(tmp_path), [Stub(number) for number in range(4)], []
    node = cluster.add_node(**NODE)
    losing = threading.Thread(target=lambda: lost.append(_lose(node, cluster, store)))
    losing.start()
    work = partial(wait_noting_parent, tmp_path / "gate", store)
    run_cells(cells, work, store, jobs=2, engine="ray", address=cluster.address)
    losing.join()
    assert lost[0] in {cells[0].id, cells[1].id}
    assert store.ids() == {cell.id for cell in cells}
    begun = [line for line in noted(store) if line.startswith("begun")]
    assert sorted(begun) == sorted([f"begun {lost[0]}", *(f"begun {cell.id}" for cell in cells)])


def _lose(node: Any, cluster: Any, store: Store) -> str:
    """Kill a node with all its processes while two cells run; the id of the one that ran there."""
    raylet = node.all_processes["raylet"][0].process.pid
    found: list[list[str]] = []
    while len(found) < 2:
        time.sleep(0.02)
        found = [line.split()[1:] for line in noted(store) if line.startswith("parent")]
    ((own, id),) = [(own, id) for process, own, id in found if _stat(process)[1] == str(raylet)]
    cluster.remove_node(node, allow_graceful=False)
    while _stat(own)[0] not in "XZ":  # its own process ends with the node's; it must not see the gate before
        time.sleep(0.02)
    (store.root / "gate").touch()
    return id


def _stat(process: str) -> list[str]:
    """State and parent; X for none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return ["X", ""]


def process(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_tuned_grid_over_two_nodes_one_of_them_lost_has_the_numbers_of_the_local_engine(
    tmp_path: Path, cluster: Any
) -> None:
    data = tmp_path / "small"
    synthetic(data, n=60, seed=3)
    file, node = tuned_grid(tmp_path, data), cluster.add_node(**NODE)

    def lose() -> None:
        done = tmp_path / "ray" / "done"
        while not (done.is_dir() and any(done.iterdir())):
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    def compared(out: str, *more: str) -> Any:
        ended = process("-m", "equipoise", "compare", str(file), "--out", str(tmp_path / out), "--json", *more)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)  # nothing of Ray's in it

    losing = threading.Thread(target=lose)
    losing.start()
    ray = compared("ray", "--jobs", "2", "--engine", "ray", "--address", cluster.address)
    losing.join()
    local = compared("local", "--jobs", "1")
    assert len(local["trials"]) == 8
    assert ray["trials"] == local["trials"]
    assert ray["figures"][0]["mean"] == local["figures"][0]["mean"]
    ids = [cell["id"] for cell in local["cells"]]
    assert [cell["id"] for cell in ray["cells"]] == ids
    assert Store(tmp_path / "ray").ids() == Store(tmp_path / "local").ids()
    for id in ids:
        said = [tmp_path / out / "runs" / id / "predictions.csv" for out in ("ray", "local")]
        assert said[0].read_bytes() == said[1].read_bytes()


def test_a_cluster_of_its_own_is_on_loopback_and_gives_the_numbers_of_the_local_engine(
    tmp_path: Path,
) -> None:
    data = tmp_path / "small"
    synthetic(data, n=60, seed=3)
    ended = process("-m", "tests.experiments.ray_here", str(data), str(tmp_path / "ray"))
    if "timed out during startup" in ended.stderr:
        pytest.skip("this machine is too busy for Ray, which waits half a minute for its own processes")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"addresses": ["127.0.0.1"], "told": ["start", "done"]}
    assert ended.stderr == ""
    cell, local, ray = tiny_cell(data), Store(tmp_path / "local"), Store(tmp_path / "ray")
    run_cells([cell], train_cells(local), local)
    (id,) = ray.ids()
    results = [ray.read(id)["result"], local.read(cell.id)["result"]]
    for result in results:
        assert result.pop("seconds_per_epoch") > 0
    assert results[0] == results[1]
    said = [store.run_dir(each) / "predictions.csv" for store, each in ((ray, id), (local, cell.id))]
    assert said[0].read_bytes() == said[1].read_bytes()


def test_bad_settings_are_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for settings, line in (
        ({"engine": "rey"}, r"`engine`: Unknown engine `rey`\. Did you mean `ray`\?"),
        ({"address": "127.0.0.1:1"}, r"`address` is that of a Ray cluster. Found `engine = 'local'`"),
    ):
        with pytest.raises(ValueError, match=line):
            run_cells([Stub(0)], partial(square, store), store, **settings)  # type: ignore[arg-type]


def test_work_of_the_script_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(square, "__module__", "__main__")
    with pytest.raises(ValueError, match=r"`execute` should be a function of a module .* Found `execute = square`"):
        run_cells([Stub(0)], partial(square, Store(tmp_path)), Store(tmp_path), engine="ray")

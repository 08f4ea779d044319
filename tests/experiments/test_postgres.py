"""Trials in a real PostgreSQL server, shared by machines that share no store."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.experiments.landscape import SMALL, WIDE, scored, studies, tuned, tuned_grid
from tests.experiments.postgres_server import PASSWORD, QUOTED, Server, missing

from equipoise.experiments.store import Store
from equipoise.experiments.study import Study
from equipoise.experiments.trial_database import TrialDatabase
from equipoise.experiments.tuner import Tuner

pytest.importorskip("psycopg", reason='needs `pip install "equipoise[postgres]"`')
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(name="database")
def _database(running: Server) -> str:
    """The name of an empty one."""
    name = f"trials_{secrets.token_hex(4)}"
    running.sql(f"create database {name}")
    return name


def started(file: Path) -> subprocess.Popen[str]:
    words = ["compare", str(file), "--out", str(file.parent / "out"), "--jobs", "1", "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "equipoise", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_machines_share_the_trials_and_choose_what_one_alone_does(
    data: Path, tmp_path: Path, running: Server, database: str
) -> None:
    url = running.url(database)
    both = [started(tuned_grid(tmp_path / name, data, url)) for name in ("here", "there")]
    alone = started(tuned_grid(tmp_path / "alone", data, None))
    said = [process.communicate(timeout=600) for process in (*both, alone)]
    assert [process.returncode for process in (*both, alone)] == [0, 0, 0], said
    here, there, sqlite = (json.loads(out) for out, _ in said)

    assert here["trials"] == there["trials"] == sqlite["trials"]  # settings, seeds, figures, and which was chosen
    assert Counter(row["method"] for row in sqlite["trials"]) == {"plain": 4, "ags": 4}
    means = [[(each["method"], each["mean"]) for each in found["figures"]] for found in (here, there, sqlite)]
    assert means[0] == means[1] == means[2]

    trials = {row["cell"] for row in sqlite["trials"]}
    made = [trials & Store(tmp_path / name / "out").ids() for name in ("here", "there")]
    assert made[0] | made[1] == trials  # none lost
    assert not made[0] & made[1]  # none made twice
    rows = running.sql("select study_id, count(*) from trials where state = 'COMPLETE' group by study_id", database)
    assert sorted(row.split("|")[1] for row in rows.split()) == ["4", "4"]
    assert running.sql("select count(*) from pg_locks where locktype = 'advisory'", database) == "0"

    written = [file.read_bytes() for file in tmp_path.rglob("out/**/*") if file.is_file()]
    assert len(written) > 20
    for secret in (PASSWORD, QUOTED):
        assert not any(secret.encode() in each for each in written)
        assert not any(secret in each for pair in said for each in pair)


def machine(found: list[Study], folder: Path, seed: int, lives: int) -> int:
    """A process that tries settings into a store of its own; it dies with what it holds when its lives are spent."""
    child = os.fork()
    if child:
        return child
    try:
        draw, store = random.Random(seed), Store(folder)
        tuner = Tuner(found, store)
        while batch := tuner.advance():
            for cell in random.Random(seed).sample(list(batch.values()), len(batch)):
                while (asked := tuner.ask(cell)) == "busy":
                    time.sleep(0.002)
                if asked == "ours":
                    with (folder / "log").open("a") as log:
                        log.write(f"{cell.id}\n")
                    time.sleep(draw.uniform(0, 0.004))
                    lives -= 1
                    if not lives:
                        os.kill(os.getpid(), signal.SIGKILL)
                    store.put(cell.id, {"result": scored(cell)})
                    tuner.heard(cell, "done")
        (folder / "record.json").write_text(json.dumps(tuner.record()))
    finally:
        os._exit(0 if (folder / "record.json").is_file() else 1)


def test_a_machine_that_is_killed_costs_the_trial_that_it_held_and_no_other(
    data: Path, tmp_path: Path, running: Server, database: str
) -> None:
    tuning = {"trials": 12, "storage": running.url(database)}
    found = studies(data, methods=["plain", "ags"], base={"search": WIDE}, tuning=tuning, controls=False)
    lives = (3, 6, 99)
    machines = [machine(found, tmp_path / f"m{i}", i, each) for i, each in enumerate(lives)]
    ends = [os.waitpid(each, 0)[1] for each in machines]
    assert [os.WTERMSIG(end) if os.WIFSIGNALED(end) else end for end in ends] == [9, 9, 0]

    logs = [(tmp_path / f"m{i}" / "log").read_text().split() for i in range(3)]
    held = [logs[0][-1], logs[1][-1]]
    begun = Counter(id for log in logs for id in log)
    assert len(begun) == 24
    assert begun.total() == 24 + 2
    assert set(begun) >= set(held)
    assert {id for id, times in begun.items() if times > 1} <= set(held)
    alone = studies(data, methods=["plain", "ags"], base={"search": WIDE}, tuning=12, controls=False)
    whole = tuned(alone, Store(tmp_path / "whole")).record()
    assert json.loads((tmp_path / "m2" / "record.json").read_text()) == whole
    rows = running.sql("select count(*) from trials group by study_id", database)
    assert rows.split() == ["12", "12"]

    later = Tuner(found, Store(tmp_path / "m0"))  # the first that was killed: nothing is left to do
    assert later.advance() == {}
    assert later.record() == whole
    later.close()


def test_failures_that_are_tried_again_take_nothing_from_other_machines(
    data: Path, tmp_path: Path, running: Server, database: str
) -> None:
    tuning = {"trials": 3, "storage": running.url(database)}
    found = studies(data, base={"search": WIDE}, tuning=tuning, controls=False)
    store = Store(tmp_path / "first")
    first = Tuner(found, store)
    cells = list(first.advance().values())
    for cell in cells:
        assert first.ask(cell) == "ours"
        failed = cell is cells[1]
        store.put(cell.id, {"error": "a full disk"} if failed else {"result": scored(cell)}, failed=failed)
        first.heard(cell, "failed" if failed else "done")
    assert first.advance() == {}
    again = Tuner(found, Store(tmp_path / "second"), retry=True)
    assert [cell.id for cell in again.advance().values()] == [cells[1].id]
    assert again.ask(cells[1]) == "ours"
    assert first._database is not None  # the other machine sees that it is held
    assert not first._database.claim(cells[1].id)
    Store(tmp_path / "second").put(cells[1].id, {"result": scored(cells[1])})
    again.heard(cells[1], "done")
    assert again.advance() == {}
    values = [row["value"] for row in again.record()]
    assert values == [scored(cell)["metrics"]["mae"] for cell in cells]
    third = Tuner(found, Store(tmp_path / "third"))
    assert (third.advance(), third.record()) == ({}, again.record())
    for each in (first, again, third):
        each.close()


def test_a_server_that_goes_away_is_one_line_and_the_search_goes_on_with_it(
    data: Path, tmp_path: Path, running: Server, database: str
) -> None:
    tuning = {"trials": 2, "storage": running.url(database)}
    found = studies(data, base={"search": WIDE}, tuning=tuning, controls=False)
    store = Store(tmp_path)
    tuner = Tuner(found, store)
    first, second = tuner.advance().values()
    assert tuner.ask(first) == "ours"
    store.put(first.id, {"result": scored(first)})
    running.stop()
    try:
        for lost in (lambda: tuner.heard(first, "done"), lambda: tuner.ask(second)):
            with pytest.raises(OSError, match=r"The database of trials, .*, no longer answers") as error:
                lost()
            assert "\n" not in str(error.value)
            assert "The same command goes on where it was." in str(error.value)
            assert not any(secret in str(error.value) for secret in (PASSWORD, QUOTED))
        tuner.close()
    finally:
        running.start()
    tuner = Tuner(found, store)
    assert [cell.id for cell in tuner.advance().values()] == [second.id]
    assert tuner.record()[0]["cell"] == first.id  # what the server had not heard of
    tuner.close()


def test_studies_are_made_once_however_many_come_at_the_same_time(data: Path, running: Server, database: str) -> None:
    found = studies(data, base={"search": WIDE}, methods=["plain", "ags"], models=SMALL, controls=False)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                TrialDatabase(running.url(database), found).close()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert running.sql("select count(*) from studies", database) == "2"

"""Trials that several processes keep in one database, and what the pool makes of cells that others hold or have."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from tests.experiments.landscape import WIDE, scored, studies, tuned
from tests.experiments.stub_work import Stub, noted, square

from equipoise.experiments.pool import Asked, run_cells
from equipoise.experiments.store import Store
from equipoise.experiments.trial_database import with_driver
from equipoise.experiments.tuner import Tuner
from equipoise.experiments.tuning import shown


def numbers(file: Path) -> list[str]:
    with sqlite3.connect(file) as database:
        rows = database.execute("select value_json from trial_user_attributes where key = 'number'").fetchall()
    return sorted(row[0] for row in rows)


def test_processes_that_fill_one_store_keep_each_trial_once(data: Path, tmp_path: Path) -> None:
    found = studies(data, base={"search": WIDE}, tuning=4, controls=False)
    store = Store(tmp_path)
    both = [Tuner(found, store), Tuner(found, store)]
    cells = [list(each.advance().values()) for each in both]
    assert [cell.id for cell in cells[0]] == [cell.id for cell in cells[1]]
    for cell in cells[0][::-1]:  # they finish in any order
        store.put(cell.id, {"result": scored(cell)})
        for each in both:
            each.heard(cell, "done")
    assert [each.advance() for each in both] == [{}, {}]
    assert numbers(tmp_path / "tuning.db") == ["0", "1", "2", "3"]
    whole = tuned(studies(data, base={"search": WIDE}, tuning=4, controls=False), Store(tmp_path / "whole"))
    assert both[0].record() == both[1].record() == whole.record()
    third = Tuner(found, Store(tmp_path / "none"))  # whose store, and so its database, knows nothing
    assert len(third.advance()) == 4
    for each in (*both, whole, third):
        each.close()


def test_what_another_machine_has_found_in_the_meantime_is_not_made_again(data: Path, tmp_path: Path) -> None:
    tuning = {"trials": 3, "storage": f"sqlite:///{tmp_path / 'shared.db'}"}
    found = studies(data, base={"search": WIDE}, tuning=tuning, controls=False)
    here, there = Tuner(found, Store(tmp_path / "here")), Tuner(found, Store(tmp_path / "there"))
    first, second, third = there.advance().values()
    here.advance()
    for cell, what in ((second, "done"), (third, "failed")):
        assert there.ask(cell) == "ours"
        assert there.store is not None
        there.store.put(cell.id, {"result": scored(cell)} if what == "done" else {"error": "no"}, failed=what != "done")
        there.heard(cell, what)
    assert [here.ask(cell) for cell in (first, second, third)] == ["ours", "elsewhere", "elsewhere"]
    assert [cell.id for cell in here.advance().values()] == [first.id]
    assert here.store is not None
    here.store.put(first.id, {"result": scored(first)})
    here.heard(first, "done")
    assert here.advance() == there.advance() == {}
    assert here.record() == there.record()
    assert [row["value"] is None for row in here.record()] == [False, False, True]
    assert here.store.ids() == {first.id}
    for each in (here, there):
        each.close()


def test_a_cell_is_put_off_while_it_is_busy_and_left_where_it_is_elsewhere(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Counter[int]()
    told: list[tuple[int, str]] = []

    def ask(cell: Stub) -> Asked:
        asked[cell.number] += 1
        if cell.number == 1 and asked[1] < 3:
            return "busy"
        return "elsewhere" if cell.number == 2 else "ours"

    run_cells(
        [Stub(number) for number in range(4)],
        partial(square, store),
        store,
        told=lambda cell, what, seconds: told.append((cell.number, what)),
        ask=ask,
        context=multiprocessing.get_context("fork"),
    )
    assert asked == {0: 1, 1: 3, 2: 1, 3: 1}
    assert [line.split("-")[1] for line in noted(store)] == ["0000", "0003", "0001"]
    assert (2, "elsewhere") in told
    assert [what for number, what in told if number == 1] == ["start", "done"]


@pytest.mark.parametrize(
    ("url", "driver", "without"),
    [
        ("postgresql://a:b@c/d", "postgresql+psycopg://a:b@c/d", "postgresql://a:***@c/d"),
        ("postgres://a@c/d", "postgresql+psycopg://a@c/d", "postgres://a@c/d"),
        ("postgresql+psycopg2://a:b:c@d@e/f", "postgresql+psycopg2://a:b:c@d@e/f", "postgresql+psycopg2://a:***@e/f"),
        ("postgresql:///d?host=/run&password=b&user=a", "postgresql+psycopg:///d?host=/run&password=b&user=a",
         "postgresql:///d?host=/run&password=***&user=a"),
        ("sqlite:////a:b/c@d.db", "sqlite:////a:b/c@d.db", "sqlite:////a:b/c@d.db"),
    ],
)  # fmt: skip
def test_urls_have_a_driver_and_are_shown_without_a_password(url: str, driver: str, without: str) -> None:
    assert with_driver(url) == driver
    assert shown(url) == without

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from equipoise.experiments.store import Store

GOOD = {"result": {"metrics": {"mae": 0.5}}}
OTHER = {"result": {"metrics": {"mae": 0.6}}}


def test_a_result_is_never_written_over_and_takes_the_place_of_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("a", {"error": "no"}, failed=True)
    assert store.ids("failed") == {"a"}
    assert store.failed("a")
    store.put("a", GOOD)
    store.put("a", OTHER)
    store.put("a", {"error": "late"}, failed=True)
    assert store.read("a") == GOOD
    assert store.ids() == {"a"}
    assert store.ids("failed") == set()
    assert not store.failed("a")


def test_an_error_that_is_forgotten_is_gone_and_a_result_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("a", {"error": "no"}, failed=True)
    store.put("b", GOOD)
    store.forget("a")
    store.forget("b")
    assert not store.failed("a")
    assert store.done("b")


def test_a_kill_between_result_and_error_leaves_the_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("a", GOOD)
    (tmp_path / "failed" / "a.json").write_text('{"error": "stale"}')
    assert store.ids("failed") == set()
    assert not store.failed("a")
    assert store.read("a") == GOOD


def test_half_written_files_are_no_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "done" / ".a.json.tmp").write_text('{"result"')
    assert store.ids() == set()
    assert not store.done("a")


@pytest.mark.parametrize("text", ['{"result": ', "[1]"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (Store(tmp_path).root / "done" / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"done/a\.json .*Delete it"):
        Store(tmp_path).read("a")


def _claim_elsewhere(root: Path, id: str) -> bool:
    with Store(root).claim(id) as ours:
        return ours


def test_one_process_holds_a_cell_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with store.claim("a") as ours:
            assert ours
            assert not pool.apply(_claim_elsewhere, (tmp_path, "a"))
            assert pool.apply(_claim_elsewhere, (tmp_path, "b"))
        assert pool.apply(_claim_elsewhere, (tmp_path, "a"))


def test_merging_takes_what_is_new_keeps_what_is_there_and_says_what_differs(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    for id in ("same", "differs"):
        ours.put(id, GOOD)
    ours.put("cured", {"error": "no"}, failed=True)
    theirs.put("same", GOOD)
    theirs.put("differs", OTHER)
    theirs.put("cured", GOOD)
    theirs.put("new", GOOD)
    theirs.put("broken", {"error": "theirs"}, failed=True)
    theirs.put("lost", {"error": "theirs"}, failed=True)
    ours.put("lost", GOOD)
    (theirs.run_dir("new") / "checkpoint").mkdir(parents=True)
    (theirs.run_dir("new") / "checkpoint" / "weights").write_text("heavy")
    (theirs.run_dir("new") / "test.json").write_text("{}")

    merged = ours.merge(theirs)
    assert (merged.taken, merged.same, merged.differing) == (3, 2, ("differs",))
    assert ours.ids() == {"same", "differs", "cured", "new", "lost"}
    assert ours.ids("failed") == {"broken"}
    assert ours.read("differs") == GOOD
    assert [path.name for path in ours.run_dir("new").iterdir()] == ["test.json"]

    again = ours.merge(theirs)
    assert (again.taken, again.same, again.differing) == (0, 4, ("differs",))


def test_merging_in_either_order_gives_the_same_cells(tmp_path: Path) -> None:
    parts = [Store(tmp_path / name) for name in "abc"]
    for number in range(9):
        parts[number % 3].put(f"cell-{number}", {"result": {"metrics": {"n": number}}})
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for part in parts:
        one.merge(part)
    for part in reversed(parts):
        two.merge(part)
    assert one.ids() == two.ids() == {f"cell-{number}" for number in range(9)}
    assert all(one.read(id) == two.read(id) for id in one.ids())

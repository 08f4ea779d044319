from __future__ import annotations

from pathlib import Path

from equipoise.experiments.parcel import pack, unpack
from equipoise.experiments.store import Store


def test_what_is_packed_is_unpacked_elsewhere_without_checkpoints(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    run = theirs.run_dir("a")
    for name in ("predictions.csv", "log/steps.csv", "checkpoint/weights", ".half.tmp"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    theirs.put("a", {"result": {"n": 1}})
    theirs.put("b", {"error": "no"}, failed=True)
    assert sorted(pack(theirs, "a")) == ["done/a.json", "runs/a/log/steps.csv", "runs/a/predictions.csv"]
    for id in "ab":
        unpack(pack(theirs, id), ours)
        unpack(pack(theirs, id), ours)  # a second time changes nothing
    assert (ours.ids(), ours.ids("failed")) == ({"a"}, {"b"})
    assert (ours.run_dir("a") / "log" / "steps.csv").read_text() == "log/steps.csv"
    assert sorted(path.name for path in ours.root.iterdir()) == ["done", "failed", "runs"]

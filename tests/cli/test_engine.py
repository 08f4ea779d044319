from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.cli.main import main


@pytest.mark.parametrize("command", ["compare --data nowhere", "reproduce glomo.table4 --scale tiny"])
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--address", "127.0.0.1:6379"], "Parameter `--address` is that of a Ray cluster. Add `--engine ray`."),
        (["--engine", "ray", "--jobs", "0"], "Parameter `--jobs` should be 1 or more. Found 0."),
        (["--engine", "rey"], "unknown `rey`. Did you mean `ray`? Valid: local, ray."),
    ],
)
def test_contradictions_are_one_line_before_anything_runs(
    command: str,
    flags: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), *flags]) == 2
    assert line in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

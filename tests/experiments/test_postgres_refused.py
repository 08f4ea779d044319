"""What goes wrong with a database of trials is one line, before anything runs, and without the password."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.landscape import studies, tuned_grid
from tests.experiments.postgres_server import PASSWORD, QUOTED, Server, missing

from equipoise.cli.main import main

pytest.importorskip("psycopg", reason='needs `pip install "equipoise[postgres]"`')
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.mark.parametrize(
    ("storage", "line"),
    [
        ("postgresql://ada:{wrong}@127.0.0.1:{port}/postgres", 'password authentication failed for user "ada"'),
        ("postgresql://ada:{right}@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist'),
        ("postgresql://ada:{right}@127.0.0.1:1/postgres", "connection failed: "),
        ("postgresql://127.0.0.1:1/postgres?user=ada&password={right}", "connection failed: "),
        ("postgresql://ada:{right}@127.0.0.1:port/postgres", "invalid literal for int()"),
        ("postgrsql://ada:{right}@127.0.0.1/postgres", "Can't load plugin: sqlalchemy.dialects:postgrsql"),
    ],
)
def test_a_database_that_cant_be_opened_is_one_line_without_the_password_and_nothing_runs(
    data: Path, tmp_path: Path, running: Server, capsys: pytest.CaptureFixture[str], storage: str, line: str
) -> None:
    url = storage.format(wrong="wr0ng", right=QUOTED, port=running.port)
    file = tuned_grid(tmp_path / "a", data, url)
    assert main(["compare", str(file), "--out", str(tmp_path / "out"), "--traceback"]) == 2
    err = capsys.readouterr().err
    said = err.splitlines()[-1]
    assert said.startswith("equipoise: The database of trials, postgr")
    assert line in said
    assert "***" in said
    assert main(["compare", str(file), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"{said}\n"
    for secret in (PASSWORD, QUOTED, "wr0ng"):
        assert secret not in err
    assert not list((tmp_path / "out" / "done").iterdir())


def test_a_missing_driver_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    file = tuned_grid(tmp_path / "a", data, f"postgresql://ada:{QUOTED}@127.0.0.1/postgres")
    assert main(["compare", str(file), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "equipoise: The database of trials, postgresql://ada:***@127.0.0.1/postgres, needs a driver ("
    )
    assert 'Run `pip install "equipoise[postgres]"`' in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("tuning", ["postgresql://ada:pw9@db/x", {"trials": 1, "storage": ["x://ada:pw9@db"]}])
def test_a_url_in_the_wrong_place_is_told_without_its_password(data: Path, tuning: Any) -> None:
    with pytest.raises(ValueError, match=r"ada:\*\*\*@db") as error:
        studies(data, tuning=tuning)
    assert "pw9" not in str(error.value)


def test_yaml_that_cant_be_read_is_told_without_a_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid.yaml").write_text(f"tuning: {{storage: postgresql://ada:{QUOTED}@db/x: y\n")
    assert main(["compare", str(tmp_path / "grid.yaml")]) == 2
    err = capsys.readouterr().err
    assert "grid.yaml is not valid YAML" in err
    assert QUOTED not in err

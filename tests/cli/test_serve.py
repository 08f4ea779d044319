from __future__ import annotations

import socket

import pytest

from equipoise.cli.main import main

pytest.importorskip("fastapi")
pytest.importorskip("av")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "Parameter `port` should be in 0 to 65535"),
        (["--workers", "0"], "Parameter `workers` should be 1 or more"),
        (["--token", "two words"], "The token should be printable ASCII without spaces."),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid:8000 can't be listened at"),
        (["--colour"], "unknown flag `--colour`"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert main(["serve", "nowhere", *flags]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_an_address_that_is_taken_and_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "nowhere", "--port", str(taken.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err
    assert main(["serve", "nowhere", "--port", "0"]) == 2
    assert "nowhere" in capsys.readouterr().err

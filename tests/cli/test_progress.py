from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from equipoise.cli import progress


def test_a_plain_line_comes_when_it_is_due_or_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = {"clock": 0.0, "done": 0}
    monkeypatch.setattr("equipoise.cli.progress.time.monotonic", lambda: at["clock"])
    with progress.status(3, lambda: int(at["done"]), lambda: f"{at['done']} of 3") as show:
        for clock, done, now in ((1.0, 1, False), (5.0, 1, False), (9.0, 2, False), (9.5, 3, True), (14.0, 3, False)):
            at.update(clock=clock, done=done)
            show(now)
    assert capsys.readouterr().err == "1 of 3\n3 of 3\n"


def test_a_terminal_that_was_closed_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("gone")

    monkeypatch.setattr(sys, "stderr", Closed())
    with progress.status(1, lambda: 1, lambda: "all done") as show:
        show(True)


def test_on_a_terminal_the_line_stands_beside_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    done = 0
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.status(4, lambda: done, lambda: f"{done} [of] 4") as show:
            done = 3
            show(False)
    shown = b"".join(_all_of(reader)).decode()
    os.close(reader)
    assert "3 [of] 4" in shown  # no markup is read in it
    assert "\x1b[" in shown


def _all_of(terminal: int) -> Iterator[bytes]:
    with suppress(OSError):  # a pseudo-terminal that was closed on the other side ends so
        while part := os.read(terminal, 65536):
            yield part

"""The process around a command: streams that may be gone, signals that stop it, warnings of one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
PATIENCE = 1.0


class Stopped(KeyboardInterrupt):
    """SIGTERM: what is half written is cleared away, as for Ctrl-C."""


def open_streams() -> None:
    """Give a process without standard streams ones to write to, and let no terminal's encoding end a command."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace" if name == "stderr" else "replace")


def settle_output() -> None:
    """Write out standard output now; drop what nobody takes, which the interpreter would complain about at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def short_warnings(prefix: str) -> Iterator[None]:
    """Show each warning once, in one line, without the source that raised it."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any) -> None:
        line = " ".join(str(message).split())
        if line not in shown:
            shown.add(line)
            print(f"{prefix}warning: {line}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def stopping(message: str, *, last: bool = False) -> Iterator[None]:
    """Let SIGTERM stop a command as Ctrl-C does. A signal that the caller ignores or handles stays as it is.

    Further signals change nothing for a second, for one Ctrl-C may come twice (from the terminal, and from what started
    the command); after that the process ends on the spot, as by SIGKILL.

    Args:
        message: said where a signal comes in the middle of an import. A module that is half made can't be left behind
            (NumPy ends in endless recursion), and nothing has been written yet: the process ends on the spot.
        last: the process ends after this. Once it was stopped it ignores Ctrl-C from then on: what the interpreter
            does at its end is nothing to interrupt with a traceback.
    """
    owner = os.getpid()
    first: float | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if os.getpid() != owner:  # a process that reads batches
            os._exit(128 + number)
        if first is not None and time.monotonic() - first < PATIENCE:
            return
        if first is not None or _importing(frame):
            print(message, file=sys.stderr, flush=True)
            os._exit(128 + number)
        first = time.monotonic()
        raise Stopped if number == signal.SIGTERM else KeyboardInterrupt

    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = threading.current_thread() is threading.main_thread()
    taken = [number for number, default in defaults.items() if ours and signal.getsignal(number) == default]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            ignored = last and first is not None and number == signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignored else defaults[number])


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False

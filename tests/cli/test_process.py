from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from equipoise.cli.console import print_json
from equipoise.cli.main import main
from equipoise.cli.process import Stopped, short_warnings, stopping


def process(shell: str) -> subprocess.CompletedProcess[str]:
    """A shell command with `equipoise` in it, as a user's: standard output is written in blocks."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", shell.replace("equipoise", f"{sys.executable} -m equipoise")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=env,
    )


@pytest.mark.parametrize(
    ("shell", "code", "line"),
    [
        ("equipoise list | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("equipoise list > /dev/full", 2, "equipoise: no space left on the disk; make room and run the same command"),
        ("equipoise list >&-", 0, ""),
    ],
)
def test_an_output_that_nobody_takes_is_no_riddle(shell: str, code: int, line: str) -> None:
    done = process(shell)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == bool(line)


def test_a_disk_that_takes_no_more_is_named_and_the_run_goes_on_later(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--model.hidden", "64", "--model.encoder", "mean", "--train.epochs", "2"]
    command = ["train", "--data", str(small_data), "--out", str(tmp_path / "run"), *settings]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))  # not even the config
    try:
        assert main(command) == 2
        first = capsys.readouterr().err
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # config and tables, no checkpoint
        assert main(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert first == f"equipoise: {tmp_path / 'run' / '.config.yaml.tmp'}: file too large.\n"
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        f"equipoise: Could not write the checkpoint {tmp_path / 'run' / 'checkpoint' / 'epoch-00001'}"
    )
    assert main(command) == 0


def test_sigterm_stops_as_ctrl_c_does_and_leaves_the_signal_as_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL
    cleared = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            cleared.append("what was half written")

    with pytest.raises(Stopped), stopping("stopped."):
        work()
    assert cleared
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stopping("stopped."):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_inside_an_import_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n")
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what runs in the background may ignore it
        "from equipoise.cli.process import stopping\n"
        "with stopping('stopped.'):\n"
        "    try:\n"
        "        import half\n"
        "    except BaseException:\n"  # as PyTorch does where it looks for NumPy
        "        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (130, "stopped.\n")


@pytest.mark.parametrize(("patience", "said"), [(60, "cleared away\nended\n"), (0, "now.\n")])
def test_a_second_signal_is_the_same_one_for_a_while_and_then_ends_the_process(patience: float, said: str) -> None:
    code = (
        "import atexit, os, signal, sys\n"
        "from equipoise.cli import process\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"process.PATIENCE = {patience}\n"
        "def again():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "def last():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('ended', file=sys.stderr)\n"
        "atexit.register(last)\n"
        "try:\n"
        "    with process.stopping('now.', last=True):\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        finally:\n"
        "            again()\n"
        "            print('cleared away', file=sys.stderr)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (130, said)


def test_a_warning_is_one_line_and_comes_once(capsys: pytest.CaptureFixture[str]) -> None:
    with short_warnings("equipoise: "):
        warnings.simplefilter("always")
        for text in ("a\n b", "a b", "c"):
            warnings.warn(text, UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "equipoise: warning: a b\nequipoise: warning: c\n"


def test_traceback_shows_where_an_error_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--data", str(tmp_path / "nowhere")]
    assert main(command) == 2
    line = capsys.readouterr().err
    for traced in ([*command, "--traceback"], ["--traceback", *command]):
        assert main(traced) == 2
        err = capsys.readouterr().err
        assert err.startswith("Traceback (most recent call last)")
        assert "in load\n" in err
        assert err.endswith(line)


def test_json_for_a_reader_of_ascii_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"name": "± ü"})
    stream.seek(0)
    assert json.loads(stream.read()) == {"name": "± ü"}


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.EACCES, "Permission denied", "a/b"), 2, "a/b: permission denied."),
        (OSError(errno.ENOSPC, "No space", "from", None, "to"), 2, "to: no space left on the disk; make room and"),
        (OSError("the hub is away"), 2, "the hub is away"),
        (MemoryError(), 2, "out of memory. Lower `train.batch_size`"),
        (RuntimeError("[x] DefaultCPUAllocator: can't allocate memory: you tried"), 2, "out of memory. Lower"),
        (Stopped(), 143, "stopped."),
    ],
)
def test_what_a_command_dies_of_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    from equipoise.cli import list as command

    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(command, "run", fail)
    assert main(["list"]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"equipoise: {line}")
    assert err.count("\n") == 1


def test_any_other_runtime_error_is_a_bug_and_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.cli import list as command

    def fail(_: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(command, "run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["list"])

"""A confined process tries what it may not."""

from __future__ import annotations

import json
import multiprocessing
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
from tests.serve.escape import enter

from equipoise.serve.system_calls import filter_program


def confined(tmp_path: Path, attempt: str) -> tuple[dict[str, Any], int]:
    """What a confined process found out, and how it ended."""
    folder, secret = tmp_path / "own", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("hidden")
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=enter, args=(theirs, attempt, str(folder), str(secret)))
    process.start()
    theirs.close()
    try:
        found = json.loads(ours.recv_bytes())
    except EOFError:
        found = {}
    process.join(30)
    code = process.exitcode or 0
    ours.close()
    process.close()
    return found, code


def test_memory_and_files_are_limited(tmp_path: Path) -> None:
    found, code = confined(tmp_path, "limits")
    del found["held"]
    assert found == {"small": "done", "large": "MemoryError", "short": "done", "long": "EFBIG", "many": "EMFILE"}
    assert code == 0


def test_time_is_limited(tmp_path: Path) -> None:
    found, code = confined(tmp_path, "forever")
    assert found == {}
    assert -code in (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM)


def test_limits_can_not_be_lifted(tmp_path: Path) -> None:
    found, _ = confined(tmp_path, "lift")
    assert found["before"] > 0
    if not found["held"]["calls"]:
        pytest.skip("no seccomp filter here: root may lift limits")
    assert found["after"] == found["before"]


def test_other_files_processes_and_the_network_are_out_of_reach(tmp_path: Path) -> None:
    found, _ = confined(tmp_path, "escape")
    assert set(found["own"].values()) == {"done"}
    if not found["held"]["files"]:
        pytest.skip("this kernel has no Landlock")
    assert set(found["files"].values()) == {"EACCES"}
    if not found["held"]["calls"]:
        pytest.skip("no seccomp filter here")
    assert set(found["calls"].values()) == {"EPERM"}


def run_filter(program: bytes, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """What a filter answers to a call, by an interpreter of its own."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, *[0] * (6 - len(arguments))))
    steps = [struct.unpack_from("=HBBI", program, i) for i in range(0, len(program), 8)]
    at, held = 0, 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            held = struct.unpack_from("=I", data, value)[0]
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            at += then if holds else otherwise


@pytest.mark.parametrize(
    ("machine", "architecture", "calls"),
    [
        ("x86_64", 0xC000003E, {"read": 0, "execve": 59, "socket": 41, "clone": 56, "prlimit": 302}),
        ("aarch64", 0xC00000B7, {"read": 63, "execve": 221, "socket": 198, "clone": 220, "prlimit": 261}),
    ],
)
def test_the_filter_by_hand(machine: str, architecture: int, calls: dict[str, int]) -> None:
    program = filter_program(machine)
    assert program is not None
    allow, refuse, absent, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000

    def answer(name: str, *arguments: int) -> int:
        return run_filter(program, calls[name], architecture, arguments)

    assert answer("read", 3) == allow
    assert answer("execve") == answer("socket") == refuse
    assert answer("clone", 0x3D0F00) == allow  # flags of a thread
    assert answer("clone", 0x1200011) == refuse  # flags of fork
    assert run_filter(program, 435, architecture) == absent  # clone3, whose flags no filter can read
    assert answer("prlimit", 0, 9, 0) == allow  # only reads
    assert answer("prlimit", 0, 9, 1) == answer("prlimit", 0, 9, 1 << 32) == refuse
    assert run_filter(program, calls["read"], 0x40000003) == kill  # 32-bit calls have other numbers
    if machine == "x86_64":
        assert run_filter(program, 0x40000000 + 41, architecture) == refuse  # x32
    assert filter_program("riscv64") is None

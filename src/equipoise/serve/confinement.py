"""Lock this process in, for good: what a decoder that a file has taken over could still do is to compute."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from equipoise.serve.limits import MEBIBYTE
from equipoise.serve.system_calls import filter_program

OPEN_FILES = 128
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER, _PARENT_DEATH = 38, 22, 2, 1  # of prctl(2)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # of Landlock, on every architecture
_EXECUTE, _WRITE, _READ, _READ_FOLDER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_REMOVE_FOLDER, _REMOVE_FILE, _MAKE_FOLDER, _MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE  # the others are refused on what is no folder
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # how many rights a version knows
_NET, _SCOPE = 0b11, 0b11  # TCP bind and connect, from version 4; abstract sockets and signals, from version 6
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/zero"),
    *("/dev/urandom", "/dev/random", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system"),
)


def confine(
    folder: Path, *, memory_mb: int, seconds: float, file_bytes: int, readable: Iterable[str | Path] = ()
) -> dict[str, bool]:
    """Limit this process for the rest of its life. It has to have one thread still.

    Limits on memory, processor time, size of files and number of open ones hold on every POSIX system. Linux adds
    Landlock (5.13 or later): no file is read but libraries and ``readable``, none written outside ``folder``, no
    program is started; and a filter of system calls (x86-64 and ARM64): no network, no other process, no interface to
    the kernel that a decoder has no use for. The process ends with its parent, and at the latest some seconds after
    ``seconds``.

    Args:
        folder: where it may write.
        memory_mb: MiB of address space beyond what it holds now.
        seconds: of processor time, and of wall clock.
        file_bytes: of one file that it writes.
        readable: further files and folders.

    Returns:
        What holds: ``limits``, ``files``, ``calls``.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(seconds) + 5)
    whole = int(seconds) + 1
    _limit(resource.RLIMIT_CPU, whole, whole + 1)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    held = _address_space()
    if held:
        _limit(resource.RLIMIT_AS, held + memory_mb * MEBIBYTE)
    if sys.platform != "linux":
        return {"limits": True, "files": False, "calls": False}
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return {"limits": True, "files": False, "calls": False}
    libraries = [sys.prefix, sys.base_prefix, *_import_path()]
    files = _landlock(libc, folder, [*_SYSTEM, *libraries, *readable])
    return {"limits": True, "files": files, "calls": _filter_calls(libc)}


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    _, ceiling = resource.getrlimit(what)
    wanted = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, wanted = min(soft, ceiling), min(wanted, ceiling)
    resource.setrlimit(what, (soft, wanted))


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _import_path() -> list[str]:
    here = os.getcwd()
    return [entry for entry in sys.path if entry and os.path.realpath(entry) != here]


def _landlock(libc: ctypes.CDLL, folder: Path, readable: Iterable[str | Path]) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    every = (1 << max(count for since, count in _RIGHTS.items() if since <= version)) - 1
    attributes = struct.pack("QQQ", every, _NET if version >= 4 else 0, _SCOPE if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    own = _WRITE | _READ | _READ_FOLDER | _TRUNCATE | _REMOVE_FOLDER | _REMOVE_FILE | _MAKE_FOLDER | _MAKE_FILE
    try:
        allowed = [_allow(libc, rules, folder, own & every)]
        for path in dict.fromkeys(map(str, readable)):
            if os.path.exists(path):
                allowed.append(_allow(libc, rules, path, _READ | _READ_FOLDER))
        return all(allowed) and libc.syscall(_RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str | Path, rights: int) -> bool:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        wanted = rights if os.path.isdir(path) else rights & _OF_FILES
        return bool(libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", wanted, opened), 0) == 0)
    finally:
        os.close(opened)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    program = filter_program(platform.machine())
    if program is None:
        return False
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, eight bytes each, and where they are
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    return bool(libc.prctl(_SECCOMP, _FILTER, header, 0, 0) == 0)

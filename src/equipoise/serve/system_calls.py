"""Which system calls a decoder is denied, as the program that Linux runs before each (seccomp, classic BPF)."""

from __future__ import annotations

import errno
import struct

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit number, column of the table below

# name: number on x86-64 and on ARM64 (None: none there), from the kernel's unistd_64.h and asm-generic/unistd.h
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # other programs and processes
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "setpriority": (141, 140),
    # network, and messages to other processes
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # a way around this filter and the limits
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "setrlimit": (160, 164),
    "personality": (135, 92),
    # who may do what with files; Landlock has no say in these
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "mknod": (133, None),
    "mknodat": (259, 33),
    # who this process is
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "unshare": (272, 97),
    "setns": (308, 268),
    # the machine
    "mount": (165, 40),
    "umount2": (166, 39),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}
_CLONE, _CLONE3, _PRLIMIT = (56, 220), (435, 435), (302, 261)
_THREAD = 0x10000  # CLONE_THREAD: not another process

# struct seccomp_data: number, architecture, instruction pointer, arguments of eight bytes each, low half first
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_2 = 0, 4, 16, 32
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def filter_program(machine: str) -> bytes | None:
    """The filter for a machine (``x86_64`` or ``aarch64``): eight bytes an instruction; None for any other.

    A denied call fails with EPERM, so that a library can go another way; a foreign architecture's ends the process.
    Threads may be started, processes not. Limits may be read, not set.
    """
    if machine not in _ARCHITECTURES:
        return None
    number, column = _ARCHITECTURES[machine]
    deny = _step(_RETURN, _ERROR | errno.EPERM)
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, number, then=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [_step(_AT_LEAST, 0x40000000, otherwise=1), deny]  # the x32 names of the same calls
    for numbers in _DENIED.values():
        found = numbers[column]
        if found is not None:
            program += [_step(_EQUAL, found, otherwise=1), deny]
    # Its flags are in memory, which a filter can't read: the C library then takes clone.
    program += [_step(_EQUAL, _CLONE3[column], otherwise=1), _step(_RETURN, _ERROR | errno.ENOSYS)]
    program += [_step(_EQUAL, _CLONE[column], otherwise=3), _step(_LOAD, _ARGUMENT_0)]
    program += [_step(_ANY_BIT, _THREAD, then=1), deny, _step(_LOAD, _NUMBER)]
    program += [_step(_EQUAL, _PRLIMIT[column], otherwise=5), _step(_LOAD, _ARGUMENT_2)]
    program += [_step(_EQUAL, 0, otherwise=2), _step(_LOAD, _ARGUMENT_2 + 4), _step(_EQUAL, 0, then=1), deny]
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)

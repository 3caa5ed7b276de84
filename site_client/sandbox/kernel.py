"""The few system calls that Python has no names for. Linux on x86-64; elsewhere nothing works.

Source: Linux's include/uapi: prctl.h, seccomp.h, landlock.h, and its table of system calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

SECCOMP, LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 317, 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_FILTER, _SECCOMP_ALL_THREADS = 1, 1
_LANDLOCK_VERSION = 1
_PATH_BENEATH = 1


def is_known() -> bool:
    """Tell whether this is the machine whose numbers we know."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32


def forbid_new_privileges() -> None:
    """Let no program that this process may start gain privileges that it lacks.

    Raises:
        OSError: the kernel refused.
    """
    _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def install_filter(program: bytes) -> None:
    """Filter the system calls of every thread of this process, from now on.

    Args:
        program: of the BPF machine, 8 bytes an instruction.

    Raises:
        OSError: the kernel refused, or has no such filters.
    """
    code = ctypes.create_string_buffer(program, len(program))
    form = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(code))
    _check(_syscall(SECCOMP, _SECCOMP_SET_FILTER, _SECCOMP_ALL_THREADS, ctypes.c_char_p(form)))


def landlock_version() -> int:
    """Return the version of Landlock that the kernel speaks; 0: none."""
    if not is_known():
        return 0
    return max(0, _syscall(LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION))


def landlock(handled: int, network: int, scoped: int, below: dict[int, int]) -> None:
    """Restrict this thread, and all that it starts later.

    Args:
        handled: rights over files that are denied everywhere else.
        network: rights over TCP that are denied.
        scoped: what may not reach outside of this process's own children.
        below: rights by descriptor of the folder or file that has them.

    Raises:
        OSError: the kernel refused.
    """
    form = struct.pack("=QQQ", handled, network, scoped)
    size = 24 if scoped else 16 if network else 8
    ruleset = _check(_syscall(LANDLOCK_CREATE, ctypes.c_char_p(form[:size]), size, 0))
    try:
        for descriptor, rights in below.items():
            rule = struct.pack("=Qi", rights, descriptor)
            _check(_syscall(LANDLOCK_ADD, ruleset, _PATH_BENEATH, ctypes.c_char_p(rule), 0))
        _check(_syscall(LANDLOCK_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *words: object) -> int:
    libc = _libc()
    libc.syscall.restype = ctypes.c_long
    converted = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    return int(libc.syscall(ctypes.c_long(number), *converted))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, os.strerror(number))
    return result

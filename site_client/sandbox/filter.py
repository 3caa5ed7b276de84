"""The filter of system calls, as a program of the kernel's BPF machine.

It answers "not permitted" to what a worker never needs: sockets, other programs, other
processes, other name spaces, mounts, modules, io_uring (which could do all of that unseen).
Calls that are newer than this table do not exist for a worker.

Source: seccomp(2), Linux's x86-64 table of system calls.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _FIRST_AT, _SECOND_AT = 0, 4, 16, 24
_X86_64, _X32_BIT = 0xC000003E, 0x40000000
_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_NOT_PERMITTED, _NO_SUCH_CALL = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
_AF_UNIX, _DATAGRAM, _TYPE_MASK = 1, 2, 0x0F
_SOCKET, _SOCKETPAIR, _CLONE, _CLONE3, _NEWEST = 41, 53, 56, 435, 469
_NEW_NAMESPACE = 0x7E020000
DENIED: Final = {
    "execve": 59,
    "ptrace": 101,
    "syslog": 103,
    "mknod": 133,
    "personality": 135,
    "vhangup": 153,
    "pivot_root": 155,
    "adjtimex": 159,
    "chroot": 161,
    "acct": 163,
    "settimeofday": 164,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "sethostname": 170,
    "setdomainname": 171,
    "iopl": 172,
    "ioperm": 173,
    "init_module": 175,
    "delete_module": 176,
    "quotactl": 179,
    "clock_settime": 227,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "mknodat": 259,
    "unshare": 272,
    "perf_event_open": 298,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "clock_adjtime": 305,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "execveat": 322,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
}


def program(*, datagrams: bool) -> bytes:
    """Return the filter.

    Args:
        datagrams: whether the process may send a word to its supervisor, over a datagram
            socket of this machine; no other socket is ever made.
    """
    code = [
        _step(_LOAD, _ARCH_AT),
        _step(_EQUAL, _X86_64, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        # The same calls under other numbers, for programs of another kind.
        _step(_AT_LEAST, _X32_BIT, 0, 1),
        _step(_RETURN, _NOT_PERMITTED),
        _step(_AT_LEAST, _NEWEST + 1, 0, 1),
        _step(_RETURN, _NO_SUCH_CALL),
        # Its flags lie in memory, which a filter cannot read; the C library then uses clone.
        _step(_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, _NO_SUCH_CALL),
    ]
    for number in sorted(DENIED.values()):
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _NOT_PERMITTED)]
    code += [
        _step(_EQUAL, _CLONE, 0, 4),
        _step(_LOAD, _FIRST_AT),
        _step(_ANY_BIT, _NEW_NAMESPACE, 0, 1),
        _step(_RETURN, _NOT_PERMITTED),
        _step(_RETURN, _ALLOW),
        # Two ends of one pipe reach nobody else.
        _step(_EQUAL, _SOCKETPAIR, 0, 4),
        _step(_LOAD, _FIRST_AT),
        _step(_EQUAL, _AF_UNIX, 1, 0),
        _step(_RETURN, _NOT_PERMITTED),
        _step(_RETURN, _ALLOW),
        _step(_EQUAL, _SOCKET, 1, 0),
        _step(_RETURN, _ALLOW),
    ]
    if datagrams:
        code += [
            _step(_LOAD, _FIRST_AT),
            _step(_EQUAL, _AF_UNIX, 1, 0),
            _step(_RETURN, _NOT_PERMITTED),
            _step(_LOAD, _SECOND_AT),
            _step(0x54, _TYPE_MASK),
            _step(_EQUAL, _DATAGRAM, 0, 1),
            _step(_RETURN, _ALLOW),
        ]
    return b"".join([*code, _step(_RETURN, _NOT_PERMITTED)])


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    """One instruction: what to do, steps to skip if it holds and if not, and its operand."""
    return struct.pack("=HBBI", code, if_so, if_not, value)

"""The proof of the walls: a child process puts them up and then tries to get out.

What it was kept from is a fact, what it got through is a hole; nothing is concluded from
the kernel's version or from a configuration. Nothing is damaged by a trial that succeeds:
it opens, and closes again.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import InternalError
from site_client.sandbox.confine import Walls, confine, seal_environment
from site_client.sandbox.filter import DENIED
from site_client.site import SiteFolder

TRIAL_S = 60.0
_HARMLESS = ("ptrace", "process_vm_readv", "io_uring_setup", "bpf", "setns", "unshare", "mount")


@dataclass(frozen=True)
class Trial:
    """One attempt, and what it came to.

    Attributes:
        name: what was tried.
        prevented: whether it was.
        needs: which wall it stands against.
    """

    name: str
    prevented: bool
    needs: str


def _a_socket(family: int, kind: int) -> Callable[[SiteFolder], None]:
    def attempt(_: SiteFolder) -> None:
        socket.socket(family, kind).close()

    return attempt


def _a_call(number: int) -> Callable[[SiteFolder], None]:
    def attempt(_: SiteFolder) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        # Arguments that no such call accepts: what is asked is whether it may be asked at all.
        words = [ctypes.c_long(-1)] * 6
        if libc.syscall(ctypes.c_long(number), *words) < 0 and ctypes.get_errno() == 1:
            raise PermissionError
        raise _GotThroughError

    return attempt


class _GotThroughError(Exception):
    """A call reached the kernel, whatever that said of its arguments."""


def _a_program(_: SiteFolder) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True, capture_output=True)


def _a_file_in(folder: Callable[[SiteFolder], Path]) -> Callable[[SiteFolder], None]:
    def attempt(site: SiteFolder) -> None:
        place = folder(site) / f".trial-{os.getpid()}"
        place.touch(exist_ok=False)
        place.unlink()

    return attempt


TRIALS: dict[str, tuple[str, Callable[[SiteFolder], None]]] = {
    "an IPv4 socket": ("seccomp", _a_socket(socket.AF_INET, socket.SOCK_STREAM)),
    "an IPv4 datagram": ("seccomp", _a_socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "an IPv6 socket": ("seccomp", _a_socket(socket.AF_INET6, socket.SOCK_STREAM)),
    "a netlink socket": ("seccomp", _a_socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "a packet socket": ("seccomp", _a_socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "a socket of virtual machines": ("seccomp", _a_socket(40, socket.SOCK_STREAM)),
    "a stream to another process": ("seccomp", _a_socket(socket.AF_UNIX, socket.SOCK_STREAM)),
    "another program": ("seccomp", _a_program),
    **{name: ("seccomp", _a_call(DENIED[name])) for name in _HARMLESS},
    "a file beside the site's folder": ("Landlock", _a_file_in(lambda site: site.root)),
    "a file in the courier's folder": ("Landlock", _a_file_in(lambda site: site.courier)),
    "a file among the images": ("Landlock", _a_file_in(SiteFolder.data)),
    "a file in the program's folder": (
        "Landlock",
        _a_file_in(lambda _: Path(__file__).parent),
    ),
}
"""What is tried, by name: the wall that should hold it, and the attempt."""


def try_walls(site: SiteFolder) -> tuple[Walls, list[Trial]]:
    """Have a child process confine itself as a worker does, and try everything.

    Raises:
        InternalError: the child said nothing that can be understood.
    """
    command = [sys.executable, "-P", "-m", "site_client.sandbox.trial", str(site.root)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TRIAL_S, check=True)
        result = json.loads(done.stdout)
        walls = Walls(seccomp=result["seccomp"], landlock=result["landlock"])
        return walls, [
            Trial(name, bool(result["held"][name]), needs) for name, (needs, _) in TRIALS.items()
        ]
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise InternalError(
            "the worker's walls could not be tried",
            field="child process",
            expected="a list of what held",
            got=type(error).__name__,
        ) from error


def _main(root: str) -> None:
    """Confine this process, try to get out, and print what held."""
    site = SiteFolder(Path(root))
    seal_environment(site)
    walls = confine(site)
    results = {}
    for name, (_, attempt) in TRIALS.items():
        try:
            attempt(site)
        except OSError:
            results[name] = True
        except _GotThroughError:
            results[name] = False
        else:
            results[name] = False
    sys.stdout.write(
        json.dumps({"seccomp": walls.seccomp, "landlock": walls.landlock, "held": results})
    )


if __name__ == "__main__":
    _main(sys.argv[1])

"""Putting up the walls, once, before the worker opens an order or an image."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import CairnError, ExitCode
from site_client.notify import VARIABLE as NOTIFY
from site_client.sandbox.filter import program
from site_client.sandbox.kernel import (
    forbid_new_privileges,
    install_filter,
    is_known,
    landlock,
    landlock_version,
)
from site_client.site import SiteFolder

_EXECUTE, _WRITE, _REMOVE, _MAKE = 1 << 0, 1 << 1, 3 << 4, 0x7F << 6
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_FILE_RIGHTS = _WRITE | _TRUNCATE
_REFER_SINCE, _TRUNCATE_SINCE, _NETWORK_SINCE, _SCOPE_SINCE = 2, 3, 4, 6
_BIND_AND_CONNECT = 3
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_NUMBA_CACHE = "NUMBA_CACHE_DIR"


class OpenError(CairnError):
    """The walls could not be put up."""

    exit_code = ExitCode.VERIFICATION_FAILED


@dataclass(frozen=True)
class Walls:
    """The walls that were put up.

    Attributes:
        seccomp: whether system calls are filtered.
        landlock: version of Landlock in force; 0: none.
    """

    seccomp: bool
    landlock: int

    def __str__(self) -> str:
        """Say it in a line."""
        if not self.seccomp:
            return "no walls of its own: this is not Linux on x86-64"
        files = (
            f"writes only its own folders (Landlock {self.landlock})"
            if self.landlock
            else "may write where its user may: this kernel has no Landlock"
        )
        return f"no sockets, no other programs (seccomp); {files}"


def seal_environment(site: SiteFolder) -> None:
    """Choose places below the worker's own folder for what libraries want to write.

    Compiled code lies there, unless the environment names a place, and so do temporary
    files, where the machine's folder of them would hold the whole site, or this program.
    Before anything is imported that compiles.
    """
    folder = site.worker.resolve()
    if _NUMBA_CACHE not in os.environ:
        os.environ[_NUMBA_CACHE] = str(folder / "compiled")
    shared = Path(tempfile.gettempdir()).resolve()
    if any(place.is_relative_to(shared) for place in (folder, Path(__file__).resolve())):
        scratch = folder / "scratch"
        scratch.mkdir(mode=0o700, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)


def confine(site: SiteFolder) -> Walls:
    """Take away what a worker never needs, from this process and all that it starts.

    Raises:
        OpenError: this kernel should be able to and refused; the worker must not go on.
    """
    if not is_known():
        return Walls(seccomp=False, landlock=0)
    close_sockets()
    # A ledger may lie on a volume of its own, behind a link.
    folders = [site.worker, site.ledger, site.spool, Path(tempfile.gettempdir()), *_devices()]
    if cache := os.environ.get(_NUMBA_CACHE):
        Path(cache).mkdir(mode=0o700, parents=True, exist_ok=True)
        folders.append(Path(cache))
    version = landlock_version()
    try:
        forbid_new_privileges()
        if version:
            _restrict_files(version, folders)
        install_filter(program(datagrams=bool(os.environ.get(NOTIFY))))
    except OSError as error:
        raise OpenError(
            "the worker could not confine itself",
            field="seccomp, Landlock",
            expected="the kernel's consent",
            got=error.strerror or "an error",
            advice="Look whether a container's own filter forbids it; no image was opened",
        ) from error
    return Walls(seccomp=True, landlock=version)


def close_sockets() -> None:
    """Close every socket that whoever started us left open; standard streams stay."""
    with suppress(OSError):
        for entry in list(Path("/proc/self/fd").iterdir()):
            with suppress(OSError):
                number = int(entry.name)
                if number > 2 and stat.S_ISSOCK(os.fstat(number).st_mode):
                    os.close(number)


def _devices() -> list[Path]:
    """List what a worker may write to below ``/dev``: nothing that keeps what is written."""
    named = [Path("/dev") / name for name in ("null", "zero", "full", "tty", "dri")]
    return [*named, *Path("/dev").glob("nvidia*")]


def _restrict_files(version: int, folders: Sequence[Path]) -> None:
    """Deny writing, and the starting of programs, outside of these folders."""
    rights = _WRITE | _REMOVE | _MAKE
    rights |= _REFER if version >= _REFER_SINCE else 0
    rights |= _TRUNCATE if version >= _TRUNCATE_SINCE else 0
    scoped = 0
    if version >= _SCOPE_SINCE:
        is_abstract = os.environ.get(NOTIFY, "").startswith("@")
        scoped = _SIGNALS | (0 if is_abstract else _ABSTRACT_SOCKETS)
    network = _BIND_AND_CONNECT if version >= _NETWORK_SINCE else 0
    below: dict[int, int] = {}
    try:
        for folder in folders:
            if folder.exists():
                descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
                below[descriptor] = rights if folder.is_dir() else rights & _FILE_RIGHTS
        landlock(rights | _EXECUTE, network, scoped, below)
    finally:
        for descriptor in below:
            os.close(descriptor)

"""Disks that lose their power: what was written without fsync may be gone afterwards.

Every change below a machine's folder is one operation. At a drawn one the machine is
killed, loses its power, or has a full disk. After a power cut a file holds what was last
fsynced, all that was written, or something between; a name that was made, replaced or
removed since its folder's last fsync is there or not, each by a coin. Folders
themselves survive: a file system commits them with the first file inside.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

How = Literal["killed", "power cut", "disk full"]
MOST_HELD = 256
"""Files of one machine that are kept open after their names went, before a look through them."""


MOST_COPIED_BYTES = 1 << 16
"""A longer file is written once and never changed, but for logs: its content need not be kept."""


@dataclass(frozen=True)
class _Unchanged:
    """A long file as it was when it became durable."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> _Unchanged:
        return cls(stat.st_size, stat.st_mtime_ns)


class Crash(BaseException):
    """A machine is gone. Not an ``Exception``: nothing in it may catch this."""

    def __init__(self, machine: str) -> None:
        super().__init__(machine)
        self.machine = machine


@dataclass
class Disk:
    """The disk of one machine.

    Attributes:
        root: its folder.
        operations: changes since ``arm``.
        dead: whether the machine is down: nothing is written until ``restart``.
    """

    machine: str
    root: Path
    operations: int = 0
    dead: bool = False
    _at: int = 0
    _how: How = "killed"
    _held: dict[int, int] = field(default_factory=dict)  # inode -> descriptor, if its name is gone
    _synced: dict[int, bytes | _Unchanged] = field(default_factory=dict)  # inode -> what is durable
    _names: dict[Path, dict[str, int]] = field(default_factory=dict)  # folder -> name -> inode

    def arm(self, at: int, how: How) -> None:
        """Let operation ``at`` from now on fail (from 1; 0 for none)."""
        self.operations, self._at, self._how = 0, at, how

    def kill(self) -> NoReturn:
        """Take the machine down now; it writes nothing more until ``restart``."""
        self._how, self.dead = "killed", True
        raise Crash(self.machine)

    def disarm(self) -> None:
        """Let nothing more fail; say nothing of what has."""
        self._at = 0

    def changes(self, *, frees: bool = False) -> None:
        """Count one change and fail if it is the drawn one; a full disk refuses no removal."""
        if self.dead:
            raise Crash(self.machine)
        self.operations += 1
        if not self._at or self.operations < self._at:
            return
        if self._how == "disk full":
            if frees:
                return
            raise OSError(errno.ENOSPC, "No space left on device (simulated)")
        self.dead = True
        raise Crash(self.machine)

    def remember(self) -> None:
        """Take everything that is there for durable."""
        self.forget()
        for folder, _, files in os.walk(self.root):
            self._names[Path(folder)] = {name: self._note(Path(folder, name)) for name in files}

    def forget(self) -> None:
        """Let go of everything."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
        self._synced.clear()
        self._names.clear()

    def synced(self, path: Path) -> None:
        """Note what an fsync made durable: a file's content, or a folder's names."""
        if path.is_dir():
            names = [entry.name for entry in os.scandir(path) if entry.is_file()]
            self._names[path] = {name: self._note(path / name, content=False) for name in names}
            if len(self._held) > MOST_HELD:
                self._let_go()
        elif path.exists():
            self._note(path)

    def keep(self, path: Path) -> None:
        """Hold a file whose name is about to go, so that its inode number is not used again."""
        with suppress(FileNotFoundError):
            inode = path.lstat().st_ino
            if inode in self._synced and inode not in self._held:
                self._held[inode] = _open(path, os.O_RDONLY)

    def restart(self, chance: random.Random) -> None:
        """Bring the machine back; after a power cut with a disk that lost what it may lose."""
        self.dead = False
        self._at = 0
        self.release()
        if self._how == "power cut":
            for folder in {*self._names, *(Path(at) for at, _, _ in os.walk(self.root))}:
                if folder.is_dir():
                    self._lose(folder, chance)
        self.remember()

    def release(self) -> None:
        """Close what an ended process held: a constructor that failed closes no lock of its own."""
        for entry in list(os.scandir("/proc/self/fd")):
            descriptor = int(entry.name)
            if descriptor not in self._held.values():
                with suppress(OSError):
                    if os.readlink(entry.path).startswith(f"{self.root}/"):  # noqa: PTH115
                        os.close(descriptor)

    def _note(self, path: Path, *, content: bool = True) -> int:
        """Note a file, and that its content is durable; its inode number."""
        if not path.is_file() or path.is_symlink():
            return -1
        stat = path.stat()
        self._synced.setdefault(stat.st_ino, b"")
        if content:
            is_long = stat.st_size > MOST_COPIED_BYTES and path.suffix != ".jsonl"
            self._synced[stat.st_ino] = _Unchanged.of(stat) if is_long else path.read_bytes()
        return stat.st_ino

    def _durable(self, inode: int) -> bytes:
        """Return the durable bytes of an inode; of a long file what it holds, if that is the same.

        Raises:
            RuntimeError: a long file was changed, or removed behind our back.
        """
        noted = self._synced.get(inode, b"")
        if isinstance(noted, bytes):
            return noted
        if inode in self._held:
            path = Path(f"/proc/self/fd/{self._held[inode]}")
        else:
            files = (Path(at, name) for at, _, names in os.walk(self.root) for name in names)
            path = next((each for each in files if each.lstat().st_ino == inode), self.root)
        stat = path.stat()
        if stat.st_ino != inode or _Unchanged.of(stat) != noted:
            raise RuntimeError(f"a long file of {self.machine} was changed or removed: {path}")
        return path.read_bytes()

    def _let_go(self) -> None:
        """Let go of files that no durable folder names any longer."""
        named = {inode for names in self._names.values() for inode in names.values()}
        for inode in self._held.keys() - named:
            os.close(self._held.pop(inode))
            del self._synced[inode]

    def _lose(self, folder: Path, chance: random.Random) -> None:
        durable = self._names.get(folder, {})
        now = {entry.name: entry.inode() for entry in os.scandir(folder) if entry.is_file()}
        for name in sorted(durable.keys() | now.keys()):
            old, new = durable.get(name), now.get(name)
            inode = old if old != new and chance.random() < 0.5 else new
            path = folder / name
            if inode is None or inode == -1:
                with suppress(FileNotFoundError):
                    _unlink(path)
                continue
            data = self._after(path if inode == new else None, inode, chance)
            _unlink(path) if inode != new and path.exists() else None
            path.write_bytes(data)

    def _after(self, path: Path | None, inode: int, chance: random.Random) -> bytes:
        """What an inode holds afterwards: its durable bytes, all, or some more than the durable."""
        durable = self._durable(inode)
        if path is None:
            return durable
        written = path.read_bytes()
        if written == durable:
            return durable
        if not written.startswith(durable):
            return chance.choice((durable, written))
        return written[: chance.randint(len(durable), len(written))]


_open, _unlink = os.open, os.unlink
_ENDING_A_NAME = ("unlink", "remove", "replace", "rename")


class Disks:
    """All machines' disks; while ``watched``, every change of theirs goes through here."""

    def __init__(self, roots: dict[str, Path]) -> None:
        self.of = {name: Disk(name, root.resolve()) for name, root in roots.items()}

    def at(self, path: object) -> Disk | None:
        """The disk that a path or a descriptor lies on."""
        if isinstance(path, int):
            try:
                text = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115
            except OSError:
                return None
        else:
            text = os.path.abspath(os.fspath(path))  # type: ignore[call-overload]  # noqa: PTH100
        for disk in self.of.values():
            if text.startswith(f"{disk.root}/"):
                return disk
        return None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Put ourselves between the product and ``os``."""
        for disk in self.of.values():
            disk.remember()
        plain: dict[str, Callable[..., Any]] = {}

        def between(name: str, which: int = 0, only: int = 0) -> None:
            real = plain[name] = getattr(os, name)

            def changed(*args: Any, **named: Any) -> Any:
                flags = args[1] if only and len(args) > 1 else only
                disk = self.at(args[which]) if flags & only == only or flags & os.O_CREAT else None
                if disk is not None:
                    disk.changes(frees=name in ("unlink", "remove", "truncate", "ftruncate"))
                    if name in _ENDING_A_NAME:
                        disk.keep(Path(os.fspath(args[which])))
                return real(*args, **named)

            setattr(os, name, changed)

        for name in ("write", "unlink", "remove", "mkdir", "ftruncate", "truncate"):
            between(name)
        for name in ("replace", "rename", "link"):
            between(name, which=1)
        between("open", only=os.O_CREAT)
        real = plain["fsync"] = os.fsync

        def fsync(descriptor: int) -> None:
            disk = self.at(descriptor)
            if disk is not None:
                disk.changes()
            real(descriptor)
            if disk is not None:
                disk.synced(Path(os.readlink(f"/proc/self/fd/{descriptor}")))  # noqa: PTH115

        os.fsync = fsync
        try:
            yield
        finally:
            for name, function in plain.items():
                setattr(os, name, function)
            for disk in self.of.values():
                disk.forget()

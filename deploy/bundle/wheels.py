"""Fetching the wheels that the locks name, and building our own.

All roles share one folder: a role's lock chooses from it. Nothing that has
another digest than its lock says stays in the folder.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from common.errors import InternalError, VerificationError
from deploy.bundle.locks import (
    ROLES,
    ROOT,
    TOOLS,
    Pin,
    check_platform,
    lock_file,
    normalised,
    read_lock,
    run_pip,
)

WHEELS = ROOT / "build" / "wheels"
OWN = "cairn-fl"
OWN_LOCK = "cairn.lock"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def revision() -> str:
    """Name the commit that is checked out, ``-dirty`` when files differ from it; else unknown."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="ascii", check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def version() -> str:
    """Cairn's own version, from pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "([^"]+)"$', text, re.M)
    if match is None:
        raise InternalError("pyproject.toml names no version")
    return match[1]


def fetch(folder: Path = WHEELS) -> list[Path]:
    """Have in ``folder`` exactly the wheels of all roles and our own.

    Raises:
        UnreachableError: pip could not fetch one.
        VerificationError: what came has another digest.
    """
    check_platform()
    folder.mkdir(parents=True, exist_ok=True)
    pins = {pin.sha256: pin for role in (*ROLES, TOOLS) for pin in read_lock(lock_file(role))}
    here = _digests(folder)
    missing = sorted(pin for digest, pin in pins.items() if digest not in here)
    for batch in batches(missing):
        _download(batch, folder)
    for digest, path in _digests(folder).items():
        if digest not in pins:
            path.unlink()
    absent = [pin for digest, pin in pins.items() if digest not in _digests(folder)]
    if absent:
        raise VerificationError(
            "pip fetched another file than the lock names",
            field=", ".join(f"{pin.name} {pin.version}" for pin in absent[:5]),
        )
    build_own(folder)
    return sorted(folder.glob("*.whl"))


def build_own(folder: Path) -> Pin:
    """Build Cairn's wheel into ``folder``, and a lock that names it by digest."""
    with tempfile.TemporaryDirectory() as place:
        run_pip(["wheel", "--quiet", "--no-deps", "--wheel-dir", place, str(ROOT)])
        built = next(Path(place).glob("*.whl"))
        target = folder / built.name
        # A new file under the old name: an archive being packed may hold a link to the old one.
        fresh = target.with_suffix(".new")
        fresh.write_bytes(built.read_bytes())
        fresh.replace(target)
    pin = Pin(normalised(OWN), version(), sha256_of(target))
    (folder / OWN_LOCK).write_text(f"# Cairn itself, {revision()}\n{pin}", encoding="ascii")
    return pin


def batches(pins: Iterable[Pin]) -> list[list[Pin]]:
    """Pins in as few groups as have no distribution twice, since pip refuses those that do.

    Roles and the tool that lists components are locked apart, so two locks may
    hold two versions of one distribution.
    """
    groups: list[dict[str, Pin]] = []
    for pin in pins:
        free = next((group for group in groups if pin.name not in group), None)
        if free is None:
            groups.append(free := {})
        free[pin.name] = pin
    return [list(group.values()) for group in groups]


def _download(pins: Iterable[Pin], folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        lock = Path(place) / "missing.lock"
        lock.write_text("".join(str(pin) for pin in pins), encoding="ascii")
        words = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        run_pip([*words, "--dest", str(folder), "--requirement", str(lock)])


def _digests(folder: Path) -> dict[str, Path]:
    return {sha256_of(path): path for path in folder.glob("*.whl")}

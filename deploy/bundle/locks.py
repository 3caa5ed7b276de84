"""Lock files: per role, every distribution of its environment with the SHA-256 of its wheel.

Pip resolves; what it chose is written down. A lock holds for CPython 3.11 on
x86-64 Linux, which is what the images are, and names no place to fetch from.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputDataError, InternalError, UnreachableError, VerificationError

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "deploy" / "containers" / "locks"
CONSTRAINTS = ROOT / "deploy" / "constraints.txt"
ROLES = ("worker", "courier", "aggregator")
TOOLS = "tools"
TOOL_REQUIREMENTS = ("cyclonedx-bom==7.5.0",)
PLATFORM = ("3.11", "Linux", "x86_64")

_ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!_-]+) \\\n"
    r"    --hash=sha256:(?P<sha256>[0-9a-f]{64})$"
)


@dataclass(frozen=True, order=True)
class Pin:
    """One distribution, exactly.

    Attributes:
        name: normalised (PEP 503).
        version: with its local part, e.g. ``2.13.0+cpu``.
        sha256: of the wheel.
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} \\\n    --hash=sha256:{self.sha256}\n"


def normalised(name: str) -> str:
    """Return a distribution's name as indices compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock_file(role: str) -> Path:
    """Return the path of a role's lock."""
    return LOCKS / f"{role}.lock"


def read_lock(path: Path) -> list[Pin]:
    """Return the pins of a lock.

    Raises:
        InputDataError: unreadable, empty, or a line that is no pin with its digest.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError("no lock", field=str(path), got=type(error).__name__) from error
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = []
    for first, second in zip(lines[::2], lines[1::2], strict=False):
        entry = _ENTRY.match(f"{first}\n{second}")
        if entry is None:
            raise InputDataError(
                "not a lock", field=path.name, expected="name==version and one --hash", got=first
            )
        pins.append(Pin(entry["name"], entry["version"], entry["sha256"]))
    if not pins or len(lines) != 2 * len(pins):
        raise InputDataError("not a lock", field=path.name, expected="pins", got="a loose line")
    return pins


def read_constraints(path: Path = CONSTRAINTS) -> dict[str, str]:
    """Version by normalised name."""
    lines = path.read_text(encoding="ascii").split()
    return {normalised(name): version for name, _, version in (ln.partition("==") for ln in lines)}


def check_platform() -> None:
    """Refuse to write or fill locks from a machine that would choose other wheels.

    Raises:
        InputDataError: not CPython 3.11 on x86-64 Linux.
    """
    here = (".".join(platform.python_version_tuple()[:2]), platform.system(), platform.machine())
    if here != PLATFORM:
        raise InputDataError(
            "this machine would choose other wheels than the images hold",
            field="python, system, machine",
            expected=" ".join(PLATFORM),
            got=" ".join(here),
        )


def resolve(requirements: Sequence[str], constraints: Path | None) -> list[Pin]:
    """List what pip would install, wheels only; nothing is installed.

    Raises:
        UnreachableError: pip could not resolve.
        InputDataError: pip would take something that has no digest.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["install", "--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:"]
        if constraints is not None:
            words += ["--constraint", str(constraints)]
        run_pip([*words, "--report", str(report), *requirements])
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    return sorted(_pin(item) for item in installs if "dir_info" not in item["download_info"])


def run_pip(words: Sequence[str], python: Path | None = None) -> None:
    """Run pip in its own process, with the configuration it has here.

    Raises:
        UnreachableError: it found no such file where it is configured to look.
        InternalError: it failed for another reason; its last lines say which.
    """
    command = [str(python or sys.executable), "-m", "pip", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-3:]
        got = " ".join(last) or f"exit status {done.returncode}"
        if "No matching distribution" in got:
            raise UnreachableError(
                "pip did not find what the lock asks for",
                field=words[0],
                got=got,
                advice="Check pip's own configuration (pip config list)",
            )
        raise InternalError("pip failed", field=words[0], got=got)


def _pin(item: Mapping[str, object]) -> Pin:
    metadata, download = item["metadata"], item["download_info"]
    if not isinstance(metadata, Mapping) or not isinstance(download, Mapping):
        raise InputDataError("not a report of pip's", field="install", got="another form")
    digest = download.get("archive_info", {}).get("hashes", {}).get("sha256")
    if digest is None:
        raise InputDataError("no digest", field=str(metadata["name"]), expected="a wheel's SHA-256")
    return Pin(normalised(str(metadata["name"])), str(metadata["version"]), str(digest))


def write_lock(role: str, pins: Sequence[Pin]) -> Path:
    """Write a role's lock."""
    path = lock_file(role)
    head = (
        f"# {role}: CPython 3.11, x86-64 Linux, wheels only.\n"
        "# Written by `python -m deploy.bundle lock` from pyproject.toml and constraints.txt.\n"
    )
    path.write_text(head + "".join(str(pin) for pin in sorted(pins)), encoding="ascii")
    return path


def make_locks() -> list[Path]:
    """Resolve every role anew and write its lock, and that of the tool that lists components.

    Raises:
        VerificationError: pip chose another version than the constraints say.
    """
    check_platform()
    constraints = read_constraints()
    written = []
    for role in ROLES:
        pins = resolve([f".[{role}]"], CONSTRAINTS)
        for pin in pins:
            # A local part (+cpu) says how it was built; the constraint names the release.
            constraint = constraints.get(pin.name)
            if constraint is not None and constraint != pin.version.partition("+")[0]:
                raise VerificationError(
                    "pip chose another version",
                    field=pin.name,
                    expected=constraint,
                    got=pin.version,
                )
        written.append(write_lock(role, pins))
    written.append(write_lock(TOOLS, resolve(TOOL_REQUIREMENTS, None)))
    return written

"""Lists of what each role consists of, as CycloneDX: names, versions, licences, dependencies.

Read off a real environment that was installed from build/wheels by the role's
lock, with no index to ask: the same list that an image carries in
/opt/cairn/share, and proof that wheels and lock are enough.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common.errors import InternalError
from deploy.bundle.locks import ROLES, ROOT, TOOLS, lock_file, run_pip
from deploy.bundle.wheels import OWN_LOCK, WHEELS

SBOMS = ROOT / "build" / "sbom"


def sbom_file(role: str) -> Path:
    """Return the path of a role's list."""
    return SBOMS / f"{role}.cdx.json"


def write_sboms(roles: Sequence[str] = ROLES) -> list[Path]:
    """Install each role offline into a passing environment and list what is there.

    Raises:
        UnreachableError: a lock asks for what is not in build/wheels; fetch first.
        InternalError: the lister failed.
    """
    SBOMS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        tool = Path(place) / "tool"
        _install(tool, [lock_file(TOOLS)])
        for role in roles:
            environment = Path(place) / role
            _install(environment, [lock_file(role), WHEELS / OWN_LOCK])
            words = [str(tool / "bin" / "cyclonedx-py"), "environment", "--output-reproducible"]
            words += ["--of", "JSON", "--sv", "1.6", "--pyproject", str(ROOT / "pyproject.toml")]
            words += ["-o", str(sbom_file(role)), str(environment / "bin" / "python")]
            done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
            if done.returncode:
                raise InternalError("no component list", field=role, got=done.stderr[-300:])
    return [sbom_file(role) for role in roles]


def _install(folder: Path, locks: list[Path]) -> None:
    """Install exactly what the locks name, from build/wheels alone."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    for lock in locks:
        words = ["--python", str(folder / "bin" / "python"), "install", "--isolated", "--quiet"]
        words += ["--no-compile", "--no-index", "--no-deps", "--find-links", str(WHEELS)]
        run_pip([*words, "--require-hashes", "--requirement", str(lock)])

"""The installed release: its version, and which extra brings a module that is not here.

A site's courier needs no torch, and a hospital that audits needs neither role. So the
programs are installed with extras, and a command that lacks one says which, with the line
that installs it. Read from the package's own metadata; nothing is imported to find out.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from common.errors import UsageError

DISTRIBUTION = "cairn-fl"
# Which extra a program means when several bring the same module.
_OF_PROGRAM = {"cairn-site": ("worker", "courier"), "cairn-aggregator": ("aggregator",)}
# Modules that are not called as the distribution that brings them.
_MODULES = {
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-tools": "grpc_tools",
    "import-linter": "importlinter",
    "pillow": "PIL",
    "protobuf": "google.protobuf",
    "pytest-xdist": "xdist",
    "scikit-learn": "sklearn",
    "simpleitk": "SimpleITK",
    "tensorboardx": "tensorboardX",
    "umap-learn": "umap",
}
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)[^;]*;.*\bextra == ['\"]([a-z]+)['\"]")


class MissingExtraError(UsageError):
    """A command needs modules that an extra of this package brings, and they are not here."""


def version() -> str:
    """Return the installed version; ``unknown`` for source files that nobody installed."""
    distribution = _installed()
    return "unknown" if distribution is None else distribution.version


@cache
def extras() -> dict[str, tuple[str, ...]]:
    """Return the modules that each extra brings; empty for files that nobody installed."""
    distribution = _installed()
    brought: dict[str, list[str]] = {}
    for line in (distribution.requires or []) if distribution is not None else []:
        if (match := _REQUIREMENT.match(line)) is not None:
            name = match[1].lower().replace("_", "-").replace(".", "-")
            module = _MODULES.get(name, match[1].replace("-", "_"))
            brought.setdefault(match[2], []).append(module)
    return {extra: tuple(modules) for extra, modules in brought.items()}


def missing_extra(module: str, program: str = "") -> MissingExtraError | None:
    """Explain a module that could not be found; None when no extra brings it.

    Args:
        module: its dotted name, as ``ModuleNotFoundError.name`` has it.
        program: the command it happened in, e.g. ``cairn-site``.
    """
    bringing = [
        extra
        for extra, modules in extras().items()
        if any(_belongs(module, brought) and not _is_here(brought) for brought in modules)
    ]
    candidates = [extra for extra in _OF_PROGRAM.get(program, ()) if extra in bringing]
    extra = next(iter(candidates or bringing), None)
    return None if extra is None else _error(module, extra)


def require_extra(extra: str) -> None:
    """Refuse at once what would otherwise fail when the first order comes.

    Raises:
        MissingExtraError: a module that ``extra`` brings is not here.
    """
    lacking = next((name for name in extras().get(extra, ()) if not _is_here(name)), None)
    if lacking is not None:
        raise _error(lacking, extra)


def install_command(extra: str, *, prefix: Path | None = None, checkout: Path | None = None) -> str:
    """Return the line that a person types to get an extra into this environment.

    Args:
        extra: its name.
        prefix: the environment; this process's when omitted.
        checkout: the folder of the source files, for an editable installation.
    """
    environment = Path(sys.prefix) if prefix is None else prefix
    unpacked = _unpacked(environment)
    if unpacked is not None and checkout is None:
        return f"sh install.sh {extra} {shlex.quote(str(unpacked))}"
    pip = f"{shlex.quote(str(environment / 'bin' / 'python'))} -m pip install"
    if checkout is None:
        return f"{pip} '{DISTRIBUTION}[{extra}]'"
    return f"cd {shlex.quote(str(checkout))} && {pip} -e '.[{extra}]'"


def python_with(extra: str, *, prefix: Path | None = None) -> str:
    """Find the interpreter that has an extra: this one, or that of the environment beside it.

    Raises:
        MissingExtraError: neither has it.
    """
    try:
        require_extra(extra)
    except MissingExtraError:
        neighbour = _beside(extra, Path(sys.prefix) if prefix is None else prefix)
        if neighbour is None:
            raise
        return str(neighbour / "python")
    return sys.executable


def checkout_folder() -> Path | None:
    """Return the folder of the source files when they are what runs (``pip install -e``)."""
    distribution = _installed()
    text = None if distribution is None else distribution.read_text("direct_url.json")
    try:
        origin = json.loads(text or "{}")
    except ValueError:
        return None
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(__file__).resolve().parents[1]


def _installed() -> Distribution | None:
    try:
        return distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return None


def _unpacked(prefix: Path) -> Path | None:
    """Tell where install.sh put an environment for each role, if this is one of them."""
    return prefix.parent.parent if prefix.parent.name == "releases" else None


def _beside(extra: str, prefix: Path) -> Path | None:
    """Find the programs of another role's environment beside this one."""
    unpacked = _unpacked(prefix)
    programs = None if unpacked is None else unpacked / extra / "bin"
    return programs if programs is not None and (programs / "python").exists() else None


def _belongs(module: str, brought: str) -> bool:
    """Tell whether a module is the one that is brought, lies in it, or is the package around it."""
    return module == brought or module.startswith(f"{brought}.") or brought.startswith(f"{module}.")


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _error(module: str, extra: str) -> MissingExtraError:
    neighbour = _beside(extra, Path(sys.prefix))
    install = f"Install it: {install_command(extra, checkout=checkout_folder())}"
    return MissingExtraError(
        "what this command needs is not here",
        field=module,
        expected=f"installed, with the extra {extra!r}",
        advice=install
        if neighbour is None
        else f"It is beside this: use the programs in {neighbour}",
    )

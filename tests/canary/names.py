"""The names that the product imports from a package, read from its sources."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def imported_names(package: str, sources: Iterable[Path]) -> dict[str, list[str]]:
    """``module:name`` (or ``module:`` for a whole module) -> the files that import it.

    Args:
        package: its top name, such as ``flwr``.
        sources: Python files, or folders of them.
    """
    found: dict[str, list[str]] = {}
    for path in _files(sources):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for module, name in _imports(node):
                if module.split(".")[0] == package:
                    found.setdefault(f"{module}:{name}", []).append(path.as_posix())
    return dict(sorted(found.items()))


def is_there(wanted: str) -> bool:
    """Tell whether ``module:name`` can be imported here."""
    module, _, name = wanted.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ImportError:
        return False
    if not name or hasattr(loaded, name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True


def _files(sources: Iterable[Path]) -> Iterator[Path]:
    for source in sources:
        yield from sorted(source.rglob("*.py")) if source.is_dir() else [source]


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
        yield from ((node.module, alias.name) for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)

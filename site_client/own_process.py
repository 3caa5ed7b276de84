"""A process that is one command's own may be restricted by it for good.

Whoever calls a command from a program of their own keeps that program as it is.
"""

from __future__ import annotations

_own = [False]


def take_over() -> None:
    """Say that nothing but one command runs in this process; its entry point does."""
    _own[0] = True


def is_own() -> bool:
    """Tell whether it was said."""
    return _own[0]

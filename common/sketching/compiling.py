"""Compilation of kernels: once per machine where a cache can be written, else per process.

Nothing here compiles at import; numba compiles a kernel at its first call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


_OPTIONS: Final = {"nogil": True, "error_model": "numpy", "boundscheck": False}


def compiled(function: _Function) -> _Function:
    """Compile ``function`` for the CPU, without bounds checks and without the GIL.

    Callers check every size before they call. ``error_model="numpy"`` removes
    the division checks that would stop the loops from being vectorised.
    """
    try:
        return cast(_Function, njit(cache=True, **_OPTIONS)(function))
    except RuntimeError:  # nowhere to write a cache: a read-only container without a home
        return cast(_Function, njit(**_OPTIONS)(function))


def inlined(function: _Function) -> _Function:
    """Paste ``function`` into the kernels that call it, so that their loops vectorise."""
    return cast(_Function, njit(inline="always", **_OPTIONS)(function))

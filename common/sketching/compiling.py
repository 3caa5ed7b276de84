"""Compilation of kernels: once per machine where a cache can be written, else per process.

Nothing here compiles at import; numba compiles a kernel at its first call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


_OPTIONS: Final = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_ANY_ORDER: Final = {"reassoc", "contract"}


def compiled(function: _Function) -> _Function:
    """Compile ``function`` for the CPU, without bounds checks and without the GIL.

    Callers check every size before they call. ``error_model="numpy"`` removes
    the division checks that would stop the loops from being vectorised.
    """
    return _compile(function, _OPTIONS)


def compiled_in_any_order(function: _Function) -> _Function:
    """Compile sums of floats that are vectorised: their terms are added in any order.

    Only for sums of whole numbers that stay below 2**53, which are exact in every order.
    """
    return _compile(function, {**_OPTIONS, "fastmath": _ANY_ORDER})


def _compile(function: _Function, options: Mapping[str, object]) -> _Function:
    try:
        return cast(_Function, njit(cache=True, **options)(function))
    except RuntimeError:  # nowhere to write a cache: a read-only container without a home
        return cast(_Function, njit(**options)(function))


def inlined(function: _Function) -> _Function:
    """Paste ``function`` into the kernels that call it, so that their loops vectorise."""
    return cast(_Function, njit(inline="always", **_OPTIONS)(function))

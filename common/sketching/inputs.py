"""Checks of everything that is fed to a sketch, and the pieces it is cut into for kernels.

Kernels do not check: a wrong type would compile another kernel, a wrong length would
read beyond an array.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import SketchError

MAX_THREADS: Final = 64
CONVERT: Final = 1 << 20  # keys converted at a time when their type is not uint64

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
_Word = TypeVar("_Word", np.uint64, np.int64)


def readonly(array: NDArray[_Word]) -> NDArray[_Word]:
    """Return a view nobody writes to: kernels are compiled once, for such keys."""
    view = array.view()
    view.flags.writeable = False
    return view


def checked_threads(threads: int) -> int:
    """``threads`` itself, refused unless it is an integer from 1 to 64."""
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise SketchError(
            "unusable thread count",
            field="threads",
            expected=f"an integer from 1 to {MAX_THREADS}",
            got=f"{threads}" if type(threads) is int else type(threads).__name__,
        )
    return threads


def checked_integers(values: ArrayLike, name: str, signed: bool) -> NDArray[np.integer]:
    """``values`` as a one-dimensional integer array that fits 64 bits.

    Raises:
        SketchError: another type or shape; negative keys; weights beyond int64.
    """
    array = np.asarray(values)
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, np.int64 if signed else np.uint64)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise SketchError(
            "unusable sketch input",
            field=name,
            expected="int64[n]" if signed else "uint64[n]",
            got=f"{array.dtype}[{', '.join(map(str, array.shape))}]",
        )
    if not signed and array.dtype.kind == "i" and array.min() < 0:
        raise SketchError(
            "unusable sketch input", field=name, expected="uint64[n]", got="negative numbers"
        )
    if signed and array.dtype == np.uint64 and array.max() > np.uint64(2**63 - 1):
        raise SketchError(
            "unusable sketch input", field=name, expected="int64[n]", got="numbers beyond int64"
        )
    return array


def checked_weights(values: ArrayLike, count: int) -> NDArray[np.integer]:
    """``values`` as ``count`` integers that fit int64.

    Raises:
        SketchError: another type, shape or length.
    """
    weights = checked_integers(values, "weights", signed=True)
    if weights.size != count:
        raise SketchError(
            "lengths differ",
            field="weights",
            expected=f"int64[{count}]",
            got=f"{weights.size} weights",
        )
    return weights


def _plain(array: NDArray[np.integer], dtype: type[_Word]) -> NDArray[_Word]:
    """Return a read-only, contiguous, aligned view or copy: one type, so one compiled kernel."""
    return readonly(np.require(array, dtype=dtype, requirements=["C", "A"]))


def pieces(
    keys: NDArray[np.integer], weights: NDArray[np.integer] | None, most: int | None = None
) -> Iterator[tuple[U64, I64 | None]]:
    """Yield the input in kernel types, at most ``most`` at a time.

    Input of other types is converted piece by piece, so that memory stays bounded.
    """
    same = keys.dtype == np.uint64 and keys.flags.c_contiguous
    if weights is not None:
        same = same and weights.dtype == np.int64 and weights.flags.c_contiguous
    step = most or (max(1, keys.size) if same else CONVERT)
    for start in range(0, keys.size, step):
        part = _plain(keys[start : start + step], np.uint64)
        amounts = None if weights is None else _plain(weights[start : start + step], np.int64)
        yield part, amounts

"""Differences of weights as whole numbers: what is added exactly and in any order.

One unit is 2**-24. Adam's steps are some 1e-3, four orders above it, so rounding to it
is far below the noise of a gradient; and 128, the largest magnitude, is beyond every norm
that a policy lets through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusedError
from common.wire.rules import FIXED_POINT

UNIT: Final = FIXED_POINT
_LARGEST: Final = 2**31 - 1


def to_fixed_point(delta: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.int32]]:
    """Round every value to the nearest unit; halves go to the even neighbour.

    Args:
        delta: float32 arrays by name.

    Returns:
        int32 arrays of the same names and shapes.

    Raises:
        RefusedError: a value is not finite, or 128 or more: a training that ran away.
    """
    fixed: dict[str, NDArray[np.int32]] = {}
    for name, array in delta.items():
        scaled = np.rint(array.astype(np.float64) * UNIT)
        bad = array.size - int(np.isfinite(scaled).sum())
        if bad:
            raise _ran_away(name, "finite", f"{bad} values that are not")
        if scaled.size and float(np.abs(scaled).max()) > _LARGEST:
            raise _ran_away(name, "below 128 in magnitude", "a larger value")
        fixed[name] = scaled.astype(np.int32)
    return fixed


def from_fixed_point(fixed: Mapping[str, NDArray[np.int32]]) -> dict[str, NDArray[np.float32]]:
    """Return the difference as whoever receives it reads it: int32 arrays to float32."""
    return {name: (array / UNIT).astype(np.float32) for name, array in fixed.items()}


def _ran_away(name: str, expected: str, got: str) -> RefusedError:
    return RefusedError(
        "an update cannot be released",
        field=f"weights/{name}",
        expected=expected,
        got=got,
        advice="Lower the plan's learning rate",
    )

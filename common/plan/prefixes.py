"""Prefixes of a key that the sites count, so that frequent keys are found without a list.

The highest digits are counted exactly; every rung of the ladder above them is a sketch of
a longer prefix. From rung to rung a prefix has some hundred extensions: few enough to try
them all for every prefix that is frequent. Nothing is counted here.
"""

from __future__ import annotations

from typing import Final

_COUNTED: Final = 1 << 18  # cells of the exact counts
_TRIED: Final = 1 << 10  # extensions of a prefix from one rung to the next


def component_ladder(digits: int) -> tuple[int, ...]:
    """Lengths for keys of a few large digits: of the exact counts, then of the one rung.

    Args:
        digits: of a key, at least 3.
    """
    longer = max(2, digits - 2)
    return max(1, min(longer - 1, digits - 4)), longer


def band_ladder(digits: int, radix: int) -> tuple[int, ...]:
    """Lengths for keys of many small digits: of the exact counts, then of every rung.

    Args:
        digits: of a key, at least 3.
        radix: of every digit.
    """
    counted = min(_most(radix, _COUNTED), digits - 2)
    rest = digits - counted
    steps = max(2, -(-rest // _most(radix, _TRIED)))
    return tuple(counted + step * rest // steps for step in range(steps))


def _most(radix: int, limit: int) -> int:
    """Count the digits that have at most ``limit`` values together; at least one digit."""
    count = 1
    while radix ** (count + 1) <= limit:
        count += 1
    return count

"""The digits of a quantised multi-band pixel. Radices only: no pixel is read here."""

from __future__ import annotations

from typing import Final

from common.keys.mixed_radix import MixedRadix

COMPONENTS: Final = 8
BINS: Final = 22  # 22**8 keys: 36 bits
BANDS: Final = 35
LEVELS: Final = 3  # 3**35 is the largest power of 3 with 35 bands below 2**64


def reduced_bands(components: int = COMPONENTS, bins: int = BINS) -> MixedRadix:
    """A pixel as ``components`` principal components of ``bins`` bins each.

    Raises:
        InputDataError: does not fit into 64 bits.
    """
    return MixedRadix([bins] * components, [f"component-{i}" for i in range(components)])


def all_bands(bands: int = BANDS, levels: int = LEVELS) -> MixedRadix:
    """A pixel as all of its ``bands``, ``levels`` grey levels each.

    Raises:
        InputDataError: does not fit into 64 bits.
    """
    return MixedRadix([levels] * bands, [f"band-{i}" for i in range(bands)])

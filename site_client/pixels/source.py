"""The one thing that summing, counting and mapping ask of a slide: its pixels in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class PixelSource(Protocol):
    """The source of what is summed: a `Slide`, or anything else that yields a slide's pixels."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, bands."""
        ...

    def chunks(self) -> Iterable[NDArray[np.generic]]:
        """dtype[n, bands], until all pixels have been seen."""
        ...

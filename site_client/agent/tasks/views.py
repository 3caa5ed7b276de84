"""The view of an image at a position: how much, how finely, and how far back.

Numbers only: nothing here knows an image, a search or a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.errors import InputDataError


@dataclass(frozen=True)
class Views:
    """The view of an image at a position.

    Attributes:
        roi: samples along each side.
        zooms: strides that are seen at once, as multiples of the level's.
        frames: positions that are seen, the present one last.
    """

    roi: int = 45
    zooms: tuple[float, ...] = (1.0,)
    frames: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.roi <= 512 and 1 <= self.frames <= 16 and self.zooms):
            raise InputDataError(
                "no such view",
                field="views",
                expected="1 to 512 samples, 1 to 16 frames, at least one zoom",
            )
        if not all(0 < zoom < np.inf for zoom in self.zooms):
            raise InputDataError("no such view", field="views.zooms", expected="positive numbers")

    @staticmethod
    def multiscale(zooms: tuple[float, ...] = (1.0, 3.0, 9.0), roi: int = 45) -> Views:
        """Details and surroundings at once: most is learned from them per processor second."""
        return Views(roi, zooms, 1)

    @staticmethod
    def history(frames: int = 4, roi: int = 45) -> Views:
        """The last positions at one stride: what rl-medical's agents see."""
        return Views(roi, (1.0,), frames)

    @staticmethod
    def channels(roi: int = 45) -> Views:
        """The image's own channels at one stride, e.g. four embedded maps."""
        return Views(roi, (1.0,), 1)

"""An image as other modalities might show it: greys for greys, the anatomy as it is.

For registrations, which compare two images whose greys mean different things, and for
landmarks that will be looked for in other contrasts than those of the training. Nothing
here knows where anything lies.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from site_client.imaging.case_sets import Cases
from site_client.imaging.cases import with_pixels

MOST_CURVES = 255
_KNOTS = 6


def contrast_curves(count: int) -> NDArray[np.uint8]:
    """uint8[1 + count, 256]: the straight one, then random ones; always the same.

    Lines between random greys, bright to dark and back: of neither sense, as the greys of
    two modalities are. Background stays 0.
    """
    rng = np.random.Generator(np.random.PCG64(count))
    knots = np.linspace(0, 255, _KNOTS)
    curves = np.empty((1 + count, 256), np.uint8)
    curves[0] = np.arange(256)
    for k in range(count):
        greys = rng.uniform(20, 255, _KNOTS)
        curves[1 + k] = np.rint(np.interp(np.arange(256), knots, greys))
        curves[1 + k, 0] = 0
    return curves


def in_random_contrasts(cases: Cases, copies: int) -> Cases:
    """Copy every image some times over, each time through another curve; always the same.

    Args:
        cases: with landmarks.
        copies: of each image, which is not itself among them.
    """
    curves = iter(contrast_curves(copies * len(cases))[1:])
    return replace(
        cases,
        volumes=tuple(
            with_pixels(case, next(curves)[case.volume.voxels])
            for case in cases.volumes
            for _ in range(copies)
        ),
        pictures=tuple(
            with_pixels(case, next(curves)[case.picture.channels])
            for case in cases.pictures
            for _ in range(copies)
        ),
    )


def recontrasted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same anatomy as another modality might show it: bright is dark, background stays 0.

    For training without a second modality, and for tests.
    """
    levels = np.arange(256, dtype=np.float64) / 255
    # Not monotone, so that no contrast curve of the pose undoes it.
    curve = 255 * (0.15 + 0.85 * (1 - levels) * (0.6 + 0.4 * np.cos(6 * levels)))
    curve[0] = 0
    inverted: NDArray[np.uint8] = np.rint(curve).astype(np.uint8)[pixels]
    return inverted

"""Images cut down on one side, so that some of their landmarks lie outside.

Fields of view differ: a scan may end above the chin. A copy that was cut says of every
landmark whether it is still there, and where it would be. Copies show a patient's image
and stay where it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from site_client.imaging.case_sets import Cases
from site_client.imaging.cases import AnyCase, first_of, middle_of
from site_client.imaging.dataset import Case
from site_client.imaging.datasets2d import PictureCase

_LEAST_SHARE: Final = 0.4  # of an image's side that is left
_LEAST_PIXELS: Final = 8
_TRIES: Final = 24


def trimmed(cases: Cases, copies: int, rng: np.random.Generator) -> Cases:
    """Cut every image of landmarks down, some times over.

    Args:
        cases: with landmarks; those that are not known stay so.
        copies: of each image.
        rng: draws where they are cut.

    Returns:
        the copies alone; the landmarks of each are where they would be, also outside of it.
        An image that cannot be cut so that a landmark is lost and another one stays, or of
        a single landmark so that enough is left, has fewer copies or none.
    """
    copied = [cut for case in cases.each for _ in range(copies) if (cut := _cut(case, rng))]
    volumes = tuple(case for case in copied if isinstance(case, Case))
    pictures = tuple(case for case in copied if isinstance(case, PictureCase))
    return Cases(cases.landmarks, volumes, pictures)


def joined(one: Cases, other: Cases) -> Cases:
    """Put cases of the same landmarks together, the first ones first."""
    return replace(one, volumes=one.volumes + other.volumes, pictures=one.pictures + other.pictures)


def are_inside(case: AnyCase) -> NDArray[np.bool_]:
    """bool[landmarks]: whether each lies in the image; one that is not known does not."""
    if isinstance(case, PictureCase):
        return case.picture.contains(case.landmarks_mm)
    return case.volume.contains(case.landmarks_mm)


def _cut(case: AnyCase, rng: np.random.Generator) -> AnyCase | None:
    """Cut one image between two of its landmarks, along a random axis from a random side."""
    marks = case.landmarks_mm[np.isfinite(case.landmarks_mm).all(axis=1)] - first_of(case)
    extent = 2 * (middle_of(case) - first_of(case))
    for _ in range(_TRIES):
        axis, from_end = int(rng.integers(len(extent))), bool(rng.integers(2))
        along = np.sort(marks[:, axis])
        if from_end:
            along = np.sort(extent[axis] - along)
        lost = int(rng.integers(1, max(1, len(along) // 2) + 1))
        beyond = along[lost] if lost < len(along) else along[-1] + 0.2 * extent[axis]
        cut = float(rng.uniform(along[lost - 1], beyond))
        if not 0 < cut < (1 - _LEAST_SHARE) * extent[axis]:
            continue
        begin, end = (0.0, extent[axis] - cut) if from_end else (cut, float(extent[axis]))
        made = _between(case, axis, begin, end)
        # Rounding to pixels may take a landmark back in.
        stay = len(marks) if made is None else int(are_inside(made).sum())
        if stay < len(marks) and (stay or len(marks) == 1):
            return made
    return None


def _between(case: AnyCase, axis: int, begin: float, end: float) -> AnyCase | None:
    """Keep what lies between two distances (mm) from the first pixel along an axis."""
    image = case.picture if isinstance(case, PictureCase) else case.volume
    first, last = int(np.ceil(begin / image.spacing_mm)), int(np.floor(end / image.spacing_mm))
    if last - first + 1 < _LEAST_PIXELS:
        return None
    moved = np.zeros(len(middle_of(case)))
    moved[axis] = first * image.spacing_mm
    if isinstance(case, PictureCase):
        picture = case.picture
        keep = [slice(None)] * 3
        keep[2 - axis] = slice(first, last + 1)
        cut = replace(
            picture,
            channels=np.ascontiguousarray(picture.channels[tuple(keep)]),
            origin_mm=picture.to_world(moved),
        )
        return replace(case, picture=cut, landmarks_mm=case.landmarks_mm - moved)
    volume = case.volume
    keep = [slice(None)] * 3
    keep[2 - axis] = slice(first, last + 1)
    x, y, z = volume.index_to_world(moved / volume.spacing_mm)
    trimmed_volume = replace(
        volume,
        voxels=np.ascontiguousarray(volume.voxels[tuple(keep)]),
        origin_mm=(float(x), float(y), float(z)),
    )
    return replace(case, volume=trimmed_volume)

"""The looks of a cluster's pixels: its mean along each component or band.

Means weigh each key by its count, so they are means over pixels. A projection
leads from digits back to bands with names; without one the components speak.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import InputDataError
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import AnyCodec, codec_of
from common.keys.pixel_bands import BandCodec
from common.keys.pixel_projection import UNIT

F64 = NDArray[np.float64]
MAX_AXES: Final = 512
_MAX_FILE: Final = 1 << 22


@dataclass(frozen=True)
class Projection:
    """From digits back to something with names.

    Attributes:
        names: of the bands.
        project: float64[n, digits] -> float64[n, bands], row by row.
    """

    names: tuple[str, ...]
    project: Callable[[F64], F64] = field(repr=False)

    @classmethod
    def affine(cls, names: Sequence[str], matrix: ArrayLike, offset: ArrayLike = 0.0) -> Self:
        """``digits @ matrix + offset``: what undoes a projection on components.

        Args:
            names: of the bands.
            matrix: float[digits, bands].
            offset: float[bands], or one number.

        Raises:
            InputDataError: shapes that do not fit, or numbers that are not finite.
        """
        by = np.asarray(matrix, np.float64)
        plus = np.asarray(offset, np.float64)
        if by.ndim != 2 or by.shape[1] != len(names) or plus.shape not in ((), (len(names),)):
            raise _unusable("matrix", f"float[digits, {len(names)}]", f"float{list(by.shape)}")
        if not (np.isfinite(by).all() and np.isfinite(plus).all()):
            raise _unusable("matrix", "finite", "a number that is not")
        return cls(tuple(names), lambda digits: digits @ by + plus)

    @classmethod
    def of_codec(cls, codec: AnyCodec) -> Self:
        """Back from a codec's components to its bands, as shares of a pixel's intensity.

        As near as that many components come: what they leave out is lost. A codec of
        all bands leaves nothing out, and speaks in grey levels.
        """
        if isinstance(codec, BandCodec):
            return cls.affine(codec.bands, np.eye(len(codec.bands)))
        low, step = codec.bin_steps()
        directions = codec.projection.weights.astype(np.float64) / UNIT
        return cls.affine(codec.bands, directions / step[:, None], (low + 0.5 / step) @ directions)


def read_projection(path: Path) -> Projection:
    """Return the way back to bands from JSON: of a pixel codec, or any affine one.

    Either the codec as the plan holds it (its ``as_dict``), or ``{"names":
    [...], "matrix": [[...]], "offset": [...]}`` with one row of ``matrix`` per digit
    and one column per name; ``offset`` may be left out.

    Raises:
        InputDataError: not such a file.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise _unusable("file", f"at most {_MAX_FILE} bytes", "more")
        value = json.loads(path.read_text("utf-8"))
        if isinstance(value, dict) and "kind" in value:
            return Projection.of_codec(codec_of(value))
        names = value["names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _unusable("names", "a list of names", "something else")
        if set(value) - {"names", "matrix", "offset"}:
            raise _unusable("file", "names, matrix and offset only", "other fields")
        return Projection.affine(names, value["matrix"], value.get("offset", 0.0))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _unusable("file", "JSON with names and matrix", type(error).__name__) from error


@dataclass(frozen=True)
class ClusterProfile:
    """One cluster in numbers.

    Attributes:
        cluster: its number.
        keys: how many released keys it holds.
        count: how many pixels those were.
        share: of all counted pixels, 0 to 1.
        means: mean along each axis, over pixels; that of all pixels if it holds none.
        contrast: the same in standard deviations above (+) or below (-) the mean of
            all pixels; 0 along an axis that never changes.
    """

    cluster: int
    keys: int
    count: int
    share: float
    means: tuple[float, ...]
    contrast: tuple[float, ...]


@dataclass(frozen=True)
class Profiles:
    """The profiles of all clusters, and what their axes are called.

    Attributes:
        axes: names of bands, or of components.
        clusters: by number.
    """

    axes: tuple[str, ...]
    clusters: tuple[ClusterProfile, ...]

    @property
    def total(self) -> int:
        """Counted pixels of all clusters."""
        return sum(profile.count for profile in self.clusters)


def make_profiles(
    codebook: Codebook, released: KeyCounts, projection: Projection | None = None
) -> Profiles:
    """Profiles of a codebook's clusters over released keys, all of which count.

    Raises:
        InputDataError: keys of another codec, or a projection of another shape.
    """
    codebook.require_codec(released.codec)
    clusters = codebook.lookup(released.keys)
    values = released.digits.decode(released.keys).astype(np.float64)
    names = released.digits.names
    if projection is not None:
        values, names = _projected(projection, values), projection.names
    if len(names) > MAX_AXES:
        raise _unusable("names", f"at most {MAX_AXES}", f"{len(names)}")
    weights = released.counts.astype(np.float64)
    mean = weights @ values / weights.sum()
    spread = np.sqrt(weights @ (values - mean) ** 2 / weights.sum())
    profiles = []
    for cluster in range(codebook.cluster_count):
        here = clusters == cluster
        count = int(released.counts[here].sum())
        means = weights[here] @ values[here] / count if count else mean
        away = np.divide(means - mean, spread, out=np.zeros_like(mean), where=spread > 0)
        profiles.append(
            ClusterProfile(
                cluster,
                int(np.count_nonzero(here)),
                count,
                count / float(weights.sum()),
                tuple(means.tolist()),
                tuple(away.tolist()),
            )
        )
    return Profiles(tuple(names), tuple(profiles))


def _projected(projection: Projection, digits: F64) -> F64:
    try:
        values = np.asarray(projection.project(digits), np.float64)
    except ValueError as error:
        raise _unusable("matrix", f"{digits.shape[1]} rows", "another number") from error
    if values.shape != (digits.shape[0], len(projection.names)) or not np.isfinite(values).all():
        raise _unusable(
            "projection",
            f"finite float[{digits.shape[0]}, {len(projection.names)}]",
            f"float{list(values.shape)}",
        )
    return values


def _unusable(what: str, expected: str, got: str) -> InputDataError:
    return InputDataError("unusable projection", field=what, expected=expected, got=got)

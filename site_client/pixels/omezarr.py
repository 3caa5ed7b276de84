"""OME-Zarr slides, a few rows of chunks at a time. The only user of zarr, an optional extra.

Understood are images of one plane per band (axes c, y, x; further axes of length 1), of
versions 0.4 and 0.5, whatever codecs zarr knows. The first level of the first multiscale
is read, which is full resolution. Chunks that the writer left out hold the fill value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.extras import checkout_folder, install_command

if TYPE_CHECKING:
    from types import ModuleType

EXTRA: Final = "zarr"
HELD: Final = 1 << 29  # bytes decoded at a time; higher chunks are decoded more than once
_MARKS: Final = ("zarr.json", ".zgroup", ".zattrs")

Array = NDArray[np.generic]


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group, by the files that begin one."""
    return any((folder / mark).is_file() for mark in _MARKS)


class ZarrSource:
    """See ``SlideFile``.

    Args:
        path: folder of the image.

    Raises:
        InputDataError: the extra is not installed, or not an image that is understood.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        group = _opened(_zarr(path), path)
        attributes = dict(group.attrs)
        ome = attributes.get("ome", attributes)  # 0.5 has a room of its own for it
        try:
            multiscale = ome["multiscales"][0]
            axes = [str(axis["name"]) for axis in multiscale["axes"]]
            self._level = str(multiscale["datasets"][0]["path"])
            array = group[self._level]
            shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise _unusable(path, "multiscales with axes and a full resolution", "none") from error
        sizes = dict(zip(axes, shape, strict=False))
        others = [axis for axis in axes if axis not in "cyx" and sizes.get(axis) != 1]
        if len(axes) != len(shape) or not {"y", "x"} <= {*axes} or others:
            raise _unusable(path, "axes c, y, x; others of length 1", ", ".join(axes) or "none")
        self._axes = axes
        self._rows = int(array.chunks[axes.index("y")])
        self.shape = (sizes["y"], sizes["x"], sizes.get("c", 1))
        self.dtype = dtype.newbyteorder("=")
        self.names = _names(ome)

    def blocks(self, rows: int, pick: Sequence[int]) -> Iterator[Array]:
        """See ``SlideFile``."""
        array = _opened(_zarr(self._path), self._path)[self._level]
        height, width, _ = self.shape
        row_bytes = width * len(pick) * self.dtype.itemsize
        step = max(1, min(self._rows, HELD // row_bytes))
        for first in range(0, height, step):
            last = min(first + step, height)
            block = np.empty((last - first, width, len(pick)), self.dtype)
            for place, band in enumerate(pick):
                block[..., place] = self._plane(array, first, last, band)
            for start in range(0, last - first, rows):
                yield block[start : start + rows]

    def _plane(self, array: Any, first: int, last: int, band: int) -> Array:  # noqa: ANN401
        """Rows of one band, decoded."""
        where = {"y": slice(first, last), "x": slice(None), "c": band}
        try:
            part = np.asarray(array[tuple(where.get(axis, 0) for axis in self._axes)])
        except Exception as error:  # every codec has its own
            raise _unusable(self._path, "chunks that can be decoded", "damaged ones") from error
        return part if self._axes.index("y") < self._axes.index("x") else part.T


def _zarr(path: Path) -> ModuleType:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise InputDataError(
            "cannot read OME-Zarr with this installation",
            field=str(path),
            expected=f"the extra {EXTRA!r}",
            got=f"no module {error.name}",
            advice=f"Install it: {install_command(EXTRA, checkout=checkout_folder())}",
        ) from error
    return zarr  # type: ignore[no-any-return]


def _opened(zarr: ModuleType, path: Path) -> Any:  # noqa: ANN401  # untyped
    try:
        return zarr.open_group(str(path), mode="r")
    except Exception as error:  # whatever damaged metadata makes it raise
        raise _unusable(path, "a Zarr group", "something else") from error


def _names(ome: Any) -> tuple[str, ...] | None:  # noqa: ANN401  # JSON
    """Labels of the channels, if the file has any."""
    try:
        labels = tuple(str(channel.get("label", "")) for channel in ome["omero"]["channels"])
    except (KeyError, TypeError, AttributeError):
        return None
    return labels if any(labels) else None


def _unusable(path: Path, expected: str, got: str) -> InputDataError:
    return InputDataError("cannot read the slide", field=str(path), expected=expected, got=got)

"""TIFF slides by strips and tiles: one row of segments per band in memory at a time.

The only user of tifffile. Pages are never read as a whole unless the file stores
them as one compressed segment, and then only up to a limit.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from common.errors import InputDataError

MAX_SEGMENT_ROW: Final = 1 << 28  # bytes decoded at a time per band
_PAGE_NAME: Final = 285
_UNCOMPRESSED: Final = 1
_SEPARATE: Final = 2

# What decoders raise on damaged bytes or on a compression they do not know.
_DECODING: Final = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
)

Array = NDArray[np.generic]


class _Plane:
    """One band, or one page of interleaved bands, as rows on demand from top to bottom."""

    def __init__(self, page: Any, plane: int, path: Path) -> None:  # noqa: ANN401  # untyped pages
        frame = page.keyframe
        self._page = page
        self._path = path
        self.shape: tuple[int, int] = (frame.imagelength, frame.imagewidth)
        self.separate = frame.planarconfig == _SEPARATE and frame.samplesperpixel > 1
        self.samples: int = 1 if self.separate else frame.samplesperpixel
        self._tile: tuple[int, int] = (
            (frame.tilelength, frame.tilewidth)
            if frame.is_tiled
            else (min(frame.rowsperstrip, self.shape[0]), self.shape[1])
        )
        self._across = -(-self.shape[1] // self._tile[1])
        down = -(-self.shape[0] // self._tile[0])
        self._first = plane * down * self._across
        self.dtype: np.dtype[np.generic] = np.dtype(frame.dtype).newbyteorder("=")
        self._stored = np.dtype(page.parent.byteorder + frame.dtype.char)
        self._plain = (
            not frame.is_tiled
            and frame.compression == _UNCOMPRESSED
            and frame.predictor == 1
            and frame.fillorder == 1
            and frame.bitspersample == 8 * self.dtype.itemsize
        )
        self._held: tuple[int, Array] | None = None
        row_bytes = self._tile[0] * self.shape[1] * self.samples * self.dtype.itemsize
        if not self._plain and row_bytes > MAX_SEGMENT_ROW:
            raise InputDataError(
                "cannot read the slide in pieces",
                field=str(path),
                expected=f"strips or tiles of at most {MAX_SEGMENT_ROW} bytes a row",
                got=f"{row_bytes} bytes",
                advice="Save it again with tiles of 256 by 256 pixels",
            )

    def rows(self, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop``, dtype[rows, columns, samples]."""
        out = np.empty((stop - start, self.shape[1], self.samples), self.dtype)
        row = start
        while row < stop:
            segment, inside = divmod(row, self._tile[0])
            count = min(stop - row, self._tile[0] - inside)
            target = out[row - start : row - start + count]
            if self._plain:
                target[...] = self._raw(segment, inside, count)
            else:
                target[...] = self._decoded(segment)[inside : inside + count]
            row += count
        return out

    def _raw(self, segment: int, inside: int, count: int) -> Array:
        """Rows straight from an uncompressed strip."""
        row = self.shape[1] * self.samples
        file = self._page.parent.filehandle
        offset = self._page.dataoffsets[self._first + segment]
        file.seek(offset + inside * row * self._stored.itemsize)
        data = file.read(count * row * self._stored.itemsize)
        if len(data) != count * row * self._stored.itemsize:
            raise _undecodable(self._path, "all of its pixels", "an early end")
        return np.frombuffer(data, self._stored).reshape(count, self.shape[1], self.samples)

    def _decoded(self, segment: int) -> Array:
        """One row of strips or tiles, kept until another is asked for."""
        if self._held is not None and self._held[0] == segment:
            return self._held[1]
        height = min(self._tile[0], self.shape[0] - segment * self._tile[0])
        row = np.zeros((height, self.shape[1], self.samples), self.dtype)
        for column in range(self._across):
            index = self._first + segment * self._across + column
            first_column = column * self._tile[1]
            part = self._segment(index)
            if part is not None:
                width = min(self._tile[1], self.shape[1] - first_column)
                row[:, first_column : first_column + width] = part[0, :height, :width]
        self._held = (segment, row)
        return row

    def _segment(self, index: int) -> Array | None:
        """Decode pixels[1, height, width, samples]; None where the file leaves them out."""
        page = self._page
        file = page.parent.filehandle
        try:
            size = page.databytecounts[index]
            if size == 0:
                return None
            file.seek(page.dataoffsets[index])
            data = file.read(size)
            tables = {"jpegtables": page.jpegtables} if page.jpegtables is not None else {}
            decoded: Array | None = page.decode(data, index, **tables)[0]
        except _DECODING as error:
            missing = "imagecodecs" in str(error)
            raise _undecodable(
                self._path,
                "uncompressed, or compressed by deflate" if missing else "readable segments",
                "a compression that this installation cannot read" if missing else "other bytes",
            ) from error
        return decoded


class TiffSource:
    """One TIFF file: a page per band, or samples within one page."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _open(path) as tif:
            pages = self._pages(tif)
            planes = _planes(pages, path)
            self.names = _names(tif, pages)
            self.shape = (*planes[0].shape, sum(p.samples for p in planes))
            self.dtype = planes[0].dtype
            if any(p.shape != planes[0].shape or p.dtype != self.dtype for p in planes):
                raise InputDataError(
                    "pages do not fit together",
                    field=str(path),
                    expected="one size and one type",
                    got="different ones",
                )

    def _pages(self, tif: tifffile.TiffFile) -> list[Any]:
        """Return the full-resolution pages of the first image, one per band."""
        try:
            series = tif.series[0]
            level = series.levels[0]
            axes = "".join(a for a, n in zip(level.axes, level.shape, strict=True) if n > 1)
            pages = list(level.pages)
        except (IndexError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _undecodable(self._path, "a TIFF with an image", "none") from error
        extra = axes.replace("Y", "").replace("X", "")
        if len(extra) > 1 or any(page is None for page in pages):
            raise InputDataError(
                "cannot use the slide",
                field=str(self._path),
                expected="one plane per band: no stack, no time, all pages present",
                got=f"axes {level.axes}",
            )
        if extra and extra not in "S" and len(pages) != level.shape[level.axes.index(extra)]:
            # A writer that stores one page entry for many planes leaves no segments to read.
            raise _undecodable(self._path, "one page per band", f"{len(pages)} pages")
        return pages

    def blocks(self, rows: int, pick: Sequence[int]) -> Iterator[Array]:
        """See ``SlideFile``."""
        with _open(self._path) as tif:
            planes = _planes(self._pages(tif), self._path)
            yield from _blocks(planes, self.shape, self.dtype, rows, pick)


class FolderSource:
    """A folder of single-band TIFFs, named by the files' stems."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in (".tif", ".tiff") and not path.name.startswith(".")
        )
        if not self._paths:
            raise InputDataError(
                "cannot read the slide", field=str(folder), expected="TIFF files", got="none"
            )
        stems = tuple(path.stem.removesuffix(".ome") for path in self._paths)
        self.names: tuple[str, ...] | None = stems
        files = [TiffSource(path) for path in self._paths]
        first = files[0]
        odd = [
            name
            for name, file in zip(stems, files, strict=True)
            if file.shape != (*first.shape[:2], 1) or file.dtype != first.dtype
        ]
        if odd:
            raise InputDataError(
                "bands do not fit together",
                field=str(folder),
                expected=f"one band each, {first.dtype} of the size of {stems[0]}",
                got=f"another size or type in {', '.join(odd)}",
            )
        self.shape = (*first.shape[:2], len(files))
        self.dtype = first.dtype

    def blocks(self, rows: int, pick: Sequence[int]) -> Iterator[Array]:
        """See ``SlideFile``."""
        with ExitStack() as stack:
            planes = []
            for path in (self._paths[i] for i in pick):
                tif = stack.enter_context(_open(path))
                planes += _planes(list(tif.series[0].levels[0].pages), path)
            shape = (*self.shape[:2], len(planes))
            yield from _blocks(planes, shape, self.dtype, rows, range(len(planes)))


def _blocks(
    planes: list[_Plane],
    shape: tuple[int, int, int],
    dtype: np.dtype[np.generic],
    rows: int,
    pick: Sequence[int],
) -> Iterator[Array]:
    where = [(p, sample) for p, plane in enumerate(planes) for sample in range(plane.samples)]
    chosen = [where[i] for i in pick]
    for start in range(0, shape[0], rows):
        stop = min(start + rows, shape[0])
        block = np.empty((stop - start, shape[1], len(pick)), dtype)
        parts = {p: planes[p].rows(start, stop) for p in {p for p, _ in chosen}}
        for column, (p, sample) in enumerate(chosen):
            block[..., column] = parts[p][..., sample]
        yield block


def _planes(pages: list[Any], path: Path) -> list[_Plane]:
    planes = []
    for page in pages:
        first = _Plane(page, 0, path)
        planes.append(first)
        if first.separate:
            count = page.keyframe.samplesperpixel
            planes += [_Plane(page, plane, path) for plane in range(1, count)]
    return planes


def _names(tif: tifffile.TiffFile, pages: list[Any]) -> tuple[str, ...] | None:
    """Names of the bands as the file tells them; None when it names not one."""
    if tif.is_ome and tif.ome_metadata is not None:
        names = _ome_names(tif.ome_metadata)
    elif tif.is_imagej and tif.imagej_metadata is not None:
        names = list(tif.imagej_metadata.get("Labels") or [])
    else:
        tags = [page.keyframe.tags.get(_PAGE_NAME) for page in pages]
        names = [str(tag.value).strip("\0 ") if tag is not None else "" for tag in tags]
    if not any(names):
        return None
    return tuple(names)


def _ome_names(xml: str) -> list[str]:
    """Channel names of the first image."""
    try:
        image = tifffile.xml2dict(xml)["OME"]["Image"]
        image = image[0] if isinstance(image, list) else image
        channels = image["Pixels"].get("Channel", [])
    except (KeyError, ValueError, TypeError, SyntaxError):
        return []
    channels = channels if isinstance(channels, list) else [channels]
    return [str(channel.get("Name", "")) for channel in channels]


def _open(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except (OSError, tifffile.TiffFileError, ValueError) as error:
        raise _undecodable(path, "a TIFF file", "something else") from error


def _undecodable(path: Path, expected: str, got: str) -> InputDataError:
    return InputDataError("cannot read the slide", field=str(path), expected=expected, got=got)

"""Multi-band slides, read a few rows at a time: never a whole slide in memory.

Understood are: ``.npy`` with bands last; TIFF with one page per band, or with
interleaved or separate samples (OME names are used where there are any); OME-Zarr; a
folder of single-band TIFFs; and images that SimpleITK opens. A plan's bands are
matched by name wherever names exist. Pixels stay in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.keys.pixel_statistics import check_bands
from site_client.imaging.faults import CutShortError

if TYPE_CHECKING:
    from site_client.imaging.multiband import BandImage

CHUNK: Final = 1 << 16  # pixels: 4.6 MB of 35 bands of 16 bits
DTYPES: Final = ("uint8", "uint16", "float32")
TIFF_SUFFIXES: Final = (".tif", ".tiff")
SIDECAR: Final = "bands.txt"
_REST: Final = 1 << 16  # bytes at a time of what lies behind the pixels


class SlideFile(Protocol):
    """A file, or several, that hold one slide.

    Attributes:
        shape: rows, columns, bands of the file.
        dtype: native byte order.
        names: of the bands; None where the file has none.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    names: tuple[str, ...] | None

    def blocks(self, rows: int, pick: Sequence[int]) -> Iterator[NDArray[np.generic]]:
        """Consecutive blocks of ``rows`` rows (the last may be shorter), top to bottom.

        Yields:
            dtype[rows, columns, len(pick)], with the file's bands ``pick`` in this order.
        """
        ...


class Slide:
    """One slide with a plan's bands, in a plan's order.

    Attributes:
        bands: their names.
        shape: rows, columns, bands.
        dtype: uint8, uint16 or float32.
    """

    def __init__(self, source: SlideFile, pick: Sequence[int], bands: tuple[str, ...]) -> None:
        self._source = source
        self._pick = tuple(pick)
        self.bands: Final = bands
        self.shape: Final = (*source.shape[:2], len(bands))
        self.dtype: Final = source.dtype

    def __repr__(self) -> str:
        return f"Slide(shape={self.shape}, dtype={self.dtype})"

    @property
    def pixels(self) -> int:
        """Rows times columns."""
        return self.shape[0] * self.shape[1]

    def show_bytes(self, tap: Callable[[bytes | memoryview], None]) -> bool:
        """Show every byte of the file, in order, while ``chunks`` reads; False if it cannot."""
        if isinstance(self._source, NpySource):
            self._source.tap = tap
            return True
        return False

    def chunks(self, pixels: int = CHUNK) -> Iterator[NDArray[np.generic]]:
        """All pixels in reading order.

        Args:
            pixels: of a chunk, at most; but at least one row is read at a time.

        Yields:
            dtype[n, bands], C order, the caller's own.

        Raises:
            InputDataError: the file ends early, or a piece cannot be decoded.
        """
        rows = max(1, pixels // self.shape[1])
        with closing(self._source.blocks(rows, self._pick)) as blocks:  # type: ignore[type-var]
            for block in blocks:
                yield np.ascontiguousarray(block.reshape(-1, len(self.bands)))


def open_every_band(path: Path) -> Slide:
    """Open a slide with all of its bands, in the file's order; reads headers only.

    Raises:
        InputDataError: as ``open_slide``.
    """
    source = _usable(path)
    names = source.names or tuple(f"band {k + 1}" for k in range(source.shape[2]))
    return Slide(source, _match(names, source, path), names)


def open_slide(path: Path, bands: Sequence[str]) -> Slide:
    """Open a slide; reads headers only.

    Args:
        path: a ``.npy``, TIFF, MetaImage, NRRD or NIfTI file, or a folder that is an OME-Zarr
            image or holds single-band TIFFs. Names come from OME or page names, from the
            files' stems in a folder,
            and for other files from ``<stem>.bands.txt`` or ``bands.txt`` beside them, one
            name per line.
        bands: names in the order that is wanted. Where the file has no names it must
            hold exactly as many bands, in this order.

    Raises:
        InputDataError: no such file, another format, or bands that are missing, stand
            twice or do not fit together; they are named.
    """
    names = tuple(bands)
    check_bands(names)
    source = _usable(path)
    return Slide(source, _match(names, source, path), names)


def _usable(path: Path) -> SlideFile:
    """Open a file whose bands can be read.

    Raises:
        InputDataError: no such file, another format, or no pixels.
    """
    source = _source(path)
    if source.dtype.name not in DTYPES:
        raise InputDataError(
            "cannot use the slide",
            field=str(path),
            expected=f"bands of {', '.join(DTYPES)}",
            got=source.dtype.name,
        )
    if min(source.shape) < 1:
        raise InputDataError(
            "cannot use the slide", field=str(path), expected="pixels", got="none at all"
        )
    return source


def _source(path: Path) -> SlideFile:
    from site_client.imaging.folders import IMAGE_SUFFIXES
    from site_client.imaging.multiband import open_bands
    from site_client.pixels import omezarr, tiff

    name = path.name.lower()
    if path.is_dir():
        return omezarr.ZarrSource(path) if omezarr.is_zarr(path) else tiff.FolderSource(path)
    if not path.is_file():
        raise InputDataError("cannot read the slide", field=str(path), got="no such file")
    if name.endswith(".npy"):
        return NpySource(path)
    if name.endswith(TIFF_SUFFIXES):
        return tiff.TiffSource(path)
    if name.endswith(IMAGE_SUFFIXES):
        return _ItkSource(open_bands(path), sidecar_names(path))
    raise InputDataError(
        "cannot read the slide",
        field=str(path),
        expected="TIFF, OME-Zarr, .npy, MetaImage, NRRD, NIfTI, or a folder of TIFFs",
        got="another suffix",
    )


def _match(planned: tuple[str, ...], source: SlideFile, path: Path) -> list[int]:
    """Index in the file of every wanted band."""
    names = source.names
    if names is None:
        if source.shape[2] != len(planned):
            raise InputDataError(
                "bands do not match, and the file does not name them",
                field=str(path),
                expected=f"{len(planned)} bands",
                got=f"{source.shape[2]}",
                advice=f"Name them in {SIDECAR} beside the file, one per line",
            )
        return list(range(len(planned)))
    if len(names) != source.shape[2]:
        raise InputDataError(
            "bands do not match their names",
            field=str(path),
            expected=f"{source.shape[2]} names",
            got=f"{len(names)}",
        )
    for problem, listed in (
        ("bands are missing", [band for band in planned if band not in names]),
        ("bands stand in the file twice", [band for band in planned if names.count(band) > 1]),
    ):
        if listed:
            raise InputDataError(
                problem,
                field=str(path),
                expected="every band of the plan once",
                got=f"a problem with {', '.join(listed)}",
                advice="Names must be spelt as in the plan",
            )
    return [names.index(band) for band in planned]


def sidecars(path: Path) -> tuple[Path, Path]:
    """Where names of bands may lie beside a slide, whether or not they do."""
    return path.with_name(f"{path.name.split('.')[0]}.{SIDECAR}"), path.parent / SIDECAR


def sidecar_names(path: Path) -> tuple[str, ...] | None:
    """Names from the text file beside ``path``, if there is one.

    Raises:
        InputDataError: it cannot be read.
    """
    for sidecar in sidecars(path):
        if sidecar.is_file():
            try:
                lines = sidecar.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputDataError(
                    "cannot read the names of bands",
                    field=str(sidecar),
                    expected="UTF-8 text, one name per line",
                    got="something else",
                ) from error
            return tuple(line.strip() for line in lines if line.strip())
    return None


class NpySource:
    """A ``.npy`` file with bands last, read by plain reads at the offset of its data.

    Attributes:
        tap: shown every byte of the file, in order, while its pixels are read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.tap: Callable[[bytes | memoryview], None] | None = None
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read(file)
                self._offset = file.tell()
        except (OSError, ValueError) as error:
            raise _unreadable(path, "a .npy file") from error
        if len(shape) != 3 or fortran or dtype.hasobject:
            raise InputDataError(
                "cannot use the slide",
                field=str(path),
                expected="numbers[rows, columns, bands] in C order",
                got=f"{len(shape)} dimensions{' in Fortran order' if fortran else ''}",
            )
        self._stored = dtype
        self.dtype = dtype.newbyteorder("=")
        self.shape = (shape[0], shape[1], shape[2])
        self.names = sidecar_names(path)

    def blocks(self, rows: int, pick: Sequence[int]) -> Iterator[NDArray[np.generic]]:
        """See ``SlideFile``."""
        height, width, bands = self.shape
        every = list(pick) == list(range(bands))
        tap = self.tap or _nobody
        with self._path.open("rb", buffering=0) as file:
            tap(file.read(self._offset))
            for start in range(0, height, rows):
                block = np.empty((min(rows, height - start), width, bands), self._stored)
                tap(_fill(file, block, self._path))
                native = block.astype(self.dtype, copy=False)
                yield native if every else native[..., list(pick)]
            while rest := file.read(_REST):
                tap(rest)


class _ItkSource:
    """An image behind ``site_client.imaging``."""

    def __init__(self, image: BandImage, names: tuple[str, ...] | None) -> None:
        self._image = image
        self.shape = image.shape
        self.dtype = image.dtype
        self.names = names

    def blocks(self, rows: int, pick: Sequence[int]) -> Iterator[NDArray[np.generic]]:
        """See ``SlideFile``."""
        for start in range(0, self.shape[0], rows):
            block = self._image.rows(start, min(start + rows, self.shape[0]))
            yield block[..., list(pick)]


def _nobody(data: bytes | memoryview) -> None:
    """Show the bytes to nobody."""


def _fill(file: FileIO, block: NDArray[np.generic], path: Path) -> memoryview:
    """Read exactly as many bytes as ``block`` has; returns them."""
    whole = view = block.view(np.uint8).reshape(-1).data
    while len(view):
        got = file.readinto(view)
        if not got:
            raise CutShortError(
                "the slide is cut short",
                field=str(path),
                expected="as many pixels as its header says",
                got="an early end",
                advice="Copy it again from where it came",
            )
        view = view[got:]
    return whole


def _unreadable(path: Path, expected: str) -> InputDataError:
    return InputDataError(
        "cannot read the slide", field=str(path), expected=expected, got="something else"
    )

"""Label maps written a piece at a time, as MetaImage: never a whole map in memory.

SimpleITK, ITK-SNAP and 3D Slicer open them as any other. The size of the compressed
pixels stands in the header, which is why it is written last, into room that was left.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.files import atomically

SUFFIX: Final = ".mha"
_DIGITS: Final = 20  # of the size of the compressed pixels
_LEVEL: Final = 2  # groups repeat so much that more effort hardly makes a map smaller

_HEADER: Final = """\
ObjectType = Image
NDims = 2
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = True
CompressedDataSize = {size:0{digits}d}
TransformMatrix = 1 0 0 1
Offset = 0 0
CenterOfRotation = 0 0
ElementSpacing = {spacing!r} {spacing!r}
DimSize = {columns} {rows}
{channels}ElementType = MET_UCHAR
ElementDataFile = LOCAL
"""


def write_in_pieces(
    path: Path,
    shape: tuple[int, int],
    pieces: Iterable[NDArray[np.uint8]],
    spacing_mm: float = 1.0,
    channels: int = 1,
) -> None:
    """Write a label map, whole or not at all.

    Args:
        path: ends in .mha.
        shape: rows, columns.
        pieces: uint8[n] or uint8[n, channels], pixels in reading order until all were there.
        spacing_mm: distance of neighbouring pixels.
        channels: maps of one place, side by side in every pixel.

    Raises:
        InputDataError: the file cannot be written, or pieces of another number of pixels.
    """
    rows, columns = shape

    def header(size: int) -> bytes:
        many = f"ElementNumberOfChannels = {channels}\n" if channels > 1 else ""
        words = {"rows": rows, "columns": columns, "channels": many, "digits": _DIGITS}
        return _HEADER.format(size=size, spacing=float(spacing_mm), **words).encode("ascii")

    def write(temporary: Path) -> None:
        compressor, done = zlib.compressobj(_LEVEL), 0
        with temporary.open("wb") as file:
            start = file.write(header(0))
            for piece in pieces:
                file.write(compressor.compress(np.ascontiguousarray(piece).data))
                done += piece.size
            file.write(compressor.flush())
            size = file.tell() - start
            file.seek(0)
            file.write(header(size))
            file.flush()
            os.fsync(file.fileno())
        if done != rows * columns * channels:
            raise InputDataError(
                "the slide has another size than its header says",
                field="slide",
                expected=f"{rows * columns * channels} labels",
                got=f"{done}",
            )

    try:
        atomically(path, write)
    except OSError as error:
        raise InputDataError(
            "cannot write the label map",
            field=str(path),
            expected="a writable place, with room",
            got=os.strerror(error.errno or 0),
        ) from error

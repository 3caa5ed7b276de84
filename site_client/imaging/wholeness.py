"""A file's completeness: what its header declares, measured against the bytes that came.

A copy that was interrupted still has its header, and image libraries fill what is
missing with zeros or grey without a word: SimpleITK opens a NIfTI file of which
2 % arrived. Every reader of this room asks here first. Only sizes are looked at
and said, never a pixel.
Formats: NIfTI-1 and -2 (nifti.nimh.nih.gov), MetaImage and NRRD (ITK), PNG, JPEG
(ITU T.81, annex B), TIFF 6.0 and BigTIFF. DICOM is SimpleITK's: it does refuse.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from common.errors import InputDataError
from site_client.imaging.contents import Content, content_of, read_head
from site_client.imaging.faults import CutShortError, EmptyImageError
from site_client.imaging.tiff_extent import tiff_extent

_BLOCK: Final = 1 << 20
_LEAST_NIFTI: Final = 352
_GZIP: Final = 31  # zlib's window, with gzip's header and checksum
_META_BYTES: Final = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
_NRRD_BYTES: Final = {
    "char": 1, "short": 2, "int": 4, "long long": 8, "longlong": 8, "float": 4, "double": 8,
    "int8": 1, "int16": 2, "int32": 4, "int64": 8,
}  # fmt: skip
# Between the marker of a JPEG scan and its end: anything but a stuffed byte or a restart.
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def require_whole(path: Path) -> None:
    """Refuse a file that ends early; a folder, and a format not known here, passes.

    Reads a compressed file to its end, once, in pieces; of others little more than
    the header.

    Raises:
        CutShortError: names the file, the bytes it promises and those that came.
        EmptyImageError: no bytes at all.
        InputDataError: unreadable, or compressed bytes that do not decompress.
    """
    if not path.is_file():
        return
    try:
        size = path.stat().st_size
        if size == 0:
            raise EmptyImageError(
                "the image file is empty",
                field=str(path),
                expected="an image",
                got="0 bytes",
                advice="Copy it again from where it came",
            )
        check = _CHECKS.get(content_of(path))
        if check is not None:
            check(path, size)
    except OSError as error:
        raise InputDataError(
            "cannot read the image", field=str(path), got=type(error).__name__
        ) from error


def _cut_short(path: Path, promised: str, arrived: str) -> CutShortError:
    return CutShortError(
        "the image file is cut short",
        field=str(path),
        expected=promised,
        got=arrived,
        advice="Copy it again from where it came; until then move it away",
    )


def _compare(path: Path, promised: int, arrived: int, what: str = "bytes") -> None:
    if arrived < promised:
        raise _cut_short(path, f"{promised:,} {what}", f"{arrived:,} ({arrived / promised:.0%})")


def _inflate(file: BinaryIO, path: Path, size: int, promised: int | None) -> int:
    """Bytes that a gzip stream holds, its checksums verified.

    Args:
        file: at the stream's beginning.
        path: for errors.
        size: of the file, for errors.
        promised: bytes that the image needs, for errors.
    """
    inflated, begun, unpacker = 0, True, zlib.decompressobj(_GZIP)
    try:
        while block := file.read(_BLOCK):
            while block:
                begun = True
                inflated += len(unpacker.decompress(block, _BLOCK))
                block = unpacker.unconsumed_tail
                if unpacker.eof:
                    # Several streams may follow one another, and padding the last.
                    block, begun = unpacker.unused_data, False
                    if len(block) < 2:
                        block += file.read(_BLOCK)
                    if block[:2] != b"\x1f\x8b":
                        return inflated
                    unpacker = zlib.decompressobj(_GZIP)
    except zlib.error as error:
        raise InputDataError(
            "the image file is damaged",
            field=str(path),
            expected="compressed bytes whose checksum holds",
            got="others",
            advice="Copy it again from where it came",
        ) from error
    if begun:
        what = "" if promised is None else f" of {promised:,} bytes of image"
        raise _cut_short(path, f"a compressed file{what} with its end", f"none in {size:,} bytes")
    return inflated


def _check_nifti(path: Path, size: int) -> None:
    head = read_head(path)
    if len(head) < _LEAST_NIFTI:
        _compare(path, _LEAST_NIFTI, len(head))
    promised = nifti_bytes(head)
    if promised is not None:
        _compare(path, promised, size)


def _check_gzipped(path: Path, size: int) -> None:
    promised = nifti_bytes(read_head(path, inflate=True))
    with path.open("rb") as file:
        inflated = _inflate(file, path, size, promised)
    if promised is not None:
        _compare(path, promised, inflated, "bytes after decompression")


def nifti_bytes(head: bytes) -> int | None:
    """Bytes that a NIfTI file needs by its first 540, header included; None if it is none."""
    for order in "<>":
        if len(head) >= 352 and struct.unpack_from(f"{order}i", head)[0] == 348:
            if head[344:348] != b"n+1\0":
                return None  # a pair of two files, or what came before NIfTI
            dims = struct.unpack_from(f"{order}8h", head, 40)
            bits = struct.unpack_from(f"{order}h", head, 72)[0]
            return _nifti_total(dims, bits, struct.unpack_from(f"{order}f", head, 108)[0])
        if len(head) >= 540 and struct.unpack_from(f"{order}i", head)[0] == 540:
            dims = struct.unpack_from(f"{order}8q", head, 16)
            bits = struct.unpack_from(f"{order}h", head, 14)[0]
            return _nifti_total(dims, bits, struct.unpack_from(f"{order}q", head, 168)[0])
    return None


def _nifti_total(dims: tuple[int, ...], bits: int, offset: float) -> int | None:
    if not 1 <= dims[0] <= 7 or bits < 1 or not math.isfinite(offset):
        return None
    voxels = math.prod(max(1, count) for count in dims[1 : dims[0] + 1])
    return int(max(offset, 0)) + (voxels * bits + 7) // 8


def _check_metaimage(path: Path, size: int) -> None:
    with path.open("rb") as file:
        fields: dict[str, str] = {}
        while "ElementDataFile" not in fields and (line := file.readline(4096)):
            name, equals, value = line.decode("latin-1").partition("=")
            if not equals or len(fields) > 200:
                return
            fields[name.strip()] = value.strip()
        start = file.tell()
    if "ElementDataFile" not in fields:
        raise _cut_short(path, "a header with its end", f"no end after {size:,} bytes")
    packed = fields.get("CompressedData", "").lower() == "true"
    try:
        voxels = math.prod(int(count) for count in fields["DimSize"].split())
        bytes_each = _META_BYTES[fields["ElementType"].removesuffix("_ARRAY")]
        channels = int(fields.get("ElementNumberOfChannels", "1"))
        promised = int(fields["CompressedDataSize"]) if packed else voxels * bytes_each * channels
    except (KeyError, ValueError):
        return
    data = fields["ElementDataFile"]
    if data.upper() != "LOCAL":
        data_file = path.parent / data
        if "/" not in data and data_file.is_file():
            _compare(data_file, promised, data_file.stat().st_size)
        return
    _compare(path, start + promised, size)


def _check_nrrd(path: Path, size: int) -> None:
    with path.open("rb") as file:
        fields: dict[str, str] = {}
        while line := file.readline(1 << 16):
            text = line.decode("latin-1").strip()
            if not text:
                break
            name, _, value = text.partition(":")
            fields[name.strip().lower()] = value.strip()
        else:
            raise _cut_short(path, "a header with its end", f"no end after {size:,} bytes")
        promised = _nrrd_promise(fields)
        if {"data file", "datafile", "line skip", "lineskip", "byte skip"} & fields.keys():
            return
        encoding = fields.get("encoding", "").lower()
        if encoding in ("gzip", "gz"):
            arrived = _inflate(file, path, size, promised)
        elif encoding == "raw":
            arrived = size - file.tell()
        else:
            return
    if promised is not None:
        _compare(path, promised, arrived, "bytes of voxels")


def _nrrd_promise(fields: Mapping[str, str]) -> int | None:
    kind = fields.get("type", "").removeprefix("signed ").removesuffix("_t")
    kind = {"uchar": "char", "ushort": "short", "uint": "int"}.get(kind, kind)
    kind = re.sub(r"^(unsigned |u(?=int))", "", kind)
    try:
        return _NRRD_BYTES[kind] * math.prod(int(count) for count in fields["sizes"].split())
    except (KeyError, ValueError):
        return None


def _check_png(path: Path, size: int) -> None:
    """Walk the chunks to the one that ends the file."""
    with path.open("rb") as file:
        offset = 8
        while offset + 12 <= size:
            file.seek(offset)
            length, name = struct.unpack(">I4s", file.read(8))
            offset += 12 + length
            if name == b"IEND" and offset <= size:
                return
    raise _cut_short(path, "its last chunk", f"an end after {size:,} bytes")


def _check_jpeg(path: Path, size: int) -> None:
    """Walk the segments to the end marker; a preview inside has one of its own."""
    data, offset = path.read_bytes(), 2
    while offset + 4 <= size:
        if data[offset] != 0xFF:
            break
        code = data[offset + 1]
        if code == 0xD9:
            return
        if code in (0xFF, 0x01) or 0xD0 <= code <= 0xD8:
            offset += 1 if code == 0xFF else 2
            continue
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        if code == 0xDA:
            marker = _JPEG_MARKER.search(data, offset)
            offset = size if marker is None else marker.start()
    if data[offset : offset + 2] != b"\xff\xd9":
        raise _cut_short(path, "an end marker", f"none in {size:,} bytes")


def _check_tiff(path: Path, size: int) -> None:
    with path.open("rb") as file:
        promised = tiff_extent(file, size)
    _compare(path, promised, size)


_CHECKS: Final[Mapping[Content | None, Callable[[Path, int], None]]] = {
    "NIfTI": _check_nifti,
    "gzipped NIfTI": _check_gzipped,
    "gzip": _check_gzipped,
    "MetaImage": _check_metaimage,
    "NRRD": _check_nrrd,
    "PNG": _check_png,
    "JPEG": _check_jpeg,
    "TIFF": _check_tiff,
}

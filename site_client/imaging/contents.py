"""Kinds of files by their first bytes, whatever they are called.

At most a few hundred bytes of a file are read here, nothing is decoded, and
nothing but the format's name is said of them.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Final, Literal

Content = Literal[
    "NIfTI", "gzipped NIfTI", "gzip", "half a NIfTI pair", "MetaImage", "NRRD", "DICOM", "PNG",
    "JPEG", "TIFF", "BMP",
]  # fmt: skip
HEAD_BYTES: Final = 544
# What each is called so that it is opened; the first one is advised.
SUFFIXES: Final[dict[Content, tuple[str, ...]]] = {
    "NIfTI": (".nii",),
    "gzipped NIfTI": (".nii.gz",),
    "MetaImage": (".mha", ".mhd"),
    "NRRD": (".nrrd", ".nhdr"),
    "DICOM": (".dcm",),
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
}
VOLUMES: Final = ("NIfTI", "gzipped NIfTI", "MetaImage", "NRRD")


def read_head(path: Path, *, inflate: bool = False) -> bytes:
    """The first bytes of a file, or of what it decompresses to; fewer where it ends.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if not inflate:
            return file.read(HEAD_BYTES)
        packed, head = file.read(1 << 15), b""
        try:
            # Some tools pack a file in many pieces, one after the other.
            while packed[:2] == b"\x1f\x8b" and len(head) < HEAD_BYTES:
                unpacker = zlib.decompressobj(31)
                head += unpacker.decompress(packed, HEAD_BYTES - len(head))
                packed = unpacker.unused_data
        except zlib.error:
            return head
        return head


def content_of(path: Path) -> Content | None:
    """The format of a file; None where it is none of ours.

    Raises:
        OSError: it cannot be read.
    """
    head = read_head(path)
    if head[:2] == b"\x1f\x8b":
        inner = read_head(path, inflate=True)
        return "gzipped NIfTI" if _nifti(inner) == "NIfTI" else "gzip"
    if (nifti := _nifti(head)) is not None:
        return nifti
    if head[128:132] == b"DICM":
        return "DICOM"
    for begins, name in _MAGIC:
        if head.startswith(begins):
            return name
    words = head[:200].replace(b" ", b"")
    if words.startswith((b"ObjectType=Image", b"NDims=")) or b"\nNDims=" in words:
        return "MetaImage"
    return None


_MAGIC: Final[tuple[tuple[bytes, Content], ...]] = (
    (b"NRRD000", "NRRD"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)


def _nifti(head: bytes) -> Content | None:
    size = head[:4]
    if size in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") and head[4:7] in (b"n+2", b"ni2"):
        return "NIfTI" if head[5:6] == b"+" else "half a NIfTI pair"
    if size not in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):
        return None
    # A file that ends within its own header still says by its first number what it was to be.
    if len(head) < 348 or head[344:348] == b"n+1\0":
        return "NIfTI"
    return "half a NIfTI pair" if head[344:347] == b"ni1" else None

"""The digest of a slide's files: whether a result still belongs to what lies on disk.

A keyed digest of every byte (AES-GMAC, then HMAC-SHA256 of its tag, which itself is never
shown): a fifteenth of what SHA-256 costs, and nobody without the key can make a slide that
has the digest of another. ``.npy`` slides are digested while their pixels are read; the
bytes of others are read once more. Nothing of it leaves the site.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from common.errors import InputDataError
from common.sketching.spec import derive
from site_client.pixels.slides import sidecars

_INFO: Final = b"cairn/pixels/slide-digest/v1"
_PIECE: Final = 1 << 22
_NAMING_OTHERS: Final = (".mhd", ".nhdr")  # their pixels lie in files that only they know


class SlideDigest:
    """Takes a slide's bytes in their order.

    Args:
        secret: of the site; digests of another one differ.
    """

    def __init__(self, secret: bytes) -> None:
        words = derive(secret, _INFO, 60)
        self._outer = words[28:]
        self._inner = Cipher(algorithms.AES(words[:16]), modes.GCM(words[16:28])).encryptor()

    def add(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._inner.authenticate_additional_data(data)

    def hex(self) -> str:
        """Return the digest, 64 hex digits; nothing can be added afterwards."""
        self._inner.finalize()
        return hmac.new(self._outer, self._inner.tag, sha256).hexdigest()


def digest_of(secret: bytes, path: Path) -> str | None:
    """Return the digest of a slide as it lies on disk; None where its files are not all known.

    Raises:
        InputDataError: a file cannot be read.
    """
    files = files_of(path)
    if files is None:
        return None
    digest = SlideDigest(secret)
    for file in files:
        add_file(digest, file, path.parent)
    return digest.hex()


def files_of(path: Path) -> list[Path] | None:
    """Return the files of a slide, the slide's own first; None where others are named inside."""
    if path.name.lower().endswith(_NAMING_OTHERS):
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return files + [sidecar for sidecar in sidecars(path) if sidecar.is_file()]


def add_file(digest: SlideDigest, path: Path, root: Path) -> None:
    """Add a file by its name below ``root``, its size and its bytes.

    Raises:
        InputDataError: it cannot be read.
    """
    try:
        add_head(digest, path, root)
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                digest.add(piece)
    except OSError as error:
        raise InputDataError(
            "cannot read the slide", field=str(path), expected="its bytes", got="an error"
        ) from error


def add_head(digest: SlideDigest, path: Path, root: Path) -> None:
    """Add what stands before a file's bytes, where these follow while it is read."""
    name = path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
    digest.add(b"%d\0%s\0%d\0" % (len(name), name, path.stat().st_size))


def standing(path: Path) -> list[str]:
    """Say how a slide's files stand on disk, without reading them: changes with every write."""
    stats = [(file, file.stat()) for file in files_of(path) or [path]]
    return [f"{file.name} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats]

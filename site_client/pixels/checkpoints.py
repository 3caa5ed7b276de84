"""What a pass found in one slide, kept in a file of its own until the pass is done.

A file is whole or absent, and sealed: an HMAC under a key that is derived from the sketches'
secret covers every byte, and its head says to which plan, phase, codec, key and slide, by
its digest, it belongs. A file of anything else is not taken, and the slide is counted
again. Counts hold keys in the clear: files are the owner's alone and never leave.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Final

from common.canonical import canonical_json, parse_canonical_json
from common.errors import InputDataError, VerificationError
from common.sketching.spec import derive
from site_client.files import atomically

MAGIC: Final = b"cairn pixels 1\n\0"
_INFO: Final = b"cairn/pixels/checkpoint/v1"
_MOST_HEAD: Final = 1 << 26
_PIECE: Final = 1 << 22
_SEAL: Final = 32

Head = dict[str, object]


@dataclass(frozen=True)
class Bond:
    """What a result belongs to, beside its slide.

    Attributes:
        plan: fingerprint.
        phase: survey, range or sketch.
        codec: identity of the codec, or of its family before there is one.
        key_id: of the sketches.
        secret: the sketches' 16 bytes; seals files and is not in them.
    """

    plan: str
    phase: str
    codec: str
    key_id: str
    secret: bytes = field(repr=False)

    def head(self) -> dict[str, str]:
        """Return it without the secret."""
        return {
            "codec": self.codec,
            "key_id": self.key_id,
            "phase": self.phase,
            "plan": self.plan,
        }

    @property
    def name(self) -> str:
        """Name of a folder for its files: 16 hex digits after the phase."""
        return f"{self.phase}-{sha256(canonical_json(self.head())).hexdigest()[:16]}"

    def require(self, head: Head, path: Path) -> None:
        """Refuse a file of anything else.

        Raises:
            InputDataError: names the first field that differs.
        """
        for name, ours in self.head().items():
            if head.get(name) != ours:
                raise InputDataError(
                    "a result of other counting",
                    field=f"{path.name}: {name}",
                    expected=ours,
                    got=str(head.get(name)),
                    advice="Count again what belongs to this plan, codec and key",
                )

    def seal(self) -> hmac.HMAC:
        """Return the HMAC that covers a file."""
        return hmac.new(derive(self.secret, _INFO, 32), digestmod=sha256)


@dataclass(frozen=True)
class SealedResult:
    """A file whose seal is whole.

    Attributes:
        path: where it lies.
        head: its first words.
        offset, size: where its content lies, in bytes.
    """

    path: Path
    head: Head
    offset: int
    size: int

    def content(self) -> bytes:
        """Return the content, which was looked at when the seal was."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def write_sealed(path: Path, bond: Bond, more: Head, content: Iterable[bytes]) -> None:
    """Write a file, whole or not at all, readable by its owner alone.

    Args:
        path: where.
        bond: what it belongs to.
        more: further words of its head: integers, strings, lists of these.
        content: piece by piece.

    Raises:
        InputDataError: there is no room, or no such folder.
    """
    head = canonical_json({**more, **bond.head()})
    before = MAGIC + len(head).to_bytes(8, "little") + head

    def write(temporary: Path) -> None:
        seal = bond.seal()
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            for piece in chain([before], content):
                seal.update(piece)
                file.write(piece)
            file.write(seal.digest())
            file.flush()
            os.fsync(file.fileno())

    try:
        atomically(path, write)
    except OSError as error:
        raise InputDataError(
            "cannot keep what was counted",
            field=str(path),
            expected="a folder that can be written, with room",
            got=os.strerror(error.errno or 0),
        ) from error


def open_sealed(path: Path, bond: Bond) -> SealedResult:
    """Open a file and look at every byte of it.

    Raises:
        InputDataError: unreadable, damaged or tampered with, or of other counting.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(len(MAGIC) + 8)
            length = int.from_bytes(start[len(MAGIC) :], "little")
            if not start.startswith(MAGIC) or length > min(size, _MOST_HEAD):
                raise _broken(path)
            text = file.read(length)
            offset, rest = file.tell(), size - file.tell() - _SEAL
            seal = bond.seal()
            seal.update(start + text)
            while rest > 0:
                piece = file.read(min(rest, _PIECE))
                if not piece:
                    raise _broken(path)
                seal.update(piece)
                rest -= len(piece)
            # The head is read first: another key is said by name, and not as damage.
            head = parse_canonical_json(text, "head")
            if not isinstance(head, dict):
                raise _broken(path)
            bond.require(head, path)
            if rest < 0 or not hmac.compare_digest(file.read(_SEAL + 1), seal.digest()):
                raise _broken(path)
    except OSError as error:
        raise InputDataError(
            "cannot read what was counted", field=str(path), expected="a file", got="none"
        ) from error
    except VerificationError as error:
        raise _broken(path) from error
    return SealedResult(path, head, offset, size - offset - _SEAL)


def _broken(path: Path) -> InputDataError:
    return InputDataError(
        "not a result that this site has sealed",
        field=str(path),
        expected="a whole file under this site's key",
        got="damaged or tampered with",
        advice="Remove it; what it held is counted again",
    )

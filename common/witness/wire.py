"""The bytes between a log and a witness: what is asked, and what may be answered.

Both directions are bounded and have one spelling. Reading decides nothing: whether a
proof or a signature holds is for ``judging`` and for whoever asked. Knows no key and no
ledger, so that a courier can carry it.

Source: C2SP tlog-witness.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from common.errors import VerificationError

ADD_CHECKPOINT = "add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
MAX_HASHES = 63
MAX_REQUEST_BYTES = 144 * 1024
"""A note as large as is read, and a proof as long as can be."""
MAX_ANSWER_BYTES = 140 * 1024
"""As many cosignatures as are read, or a note."""
_HASH_BYTES = 32
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True)
class AddCheckpoint:
    """A request to cosign a checkpoint.

    Attributes:
        old: size of the checkpoint that the witness is believed to have seen last.
        proof: 32-byte hashes from there to the new one.
        note: the new checkpoint, signed by the log.
    """

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def to_bytes(self) -> bytes:
        """Return the body of the request."""
        hashes = "".join(f"{base64.b64encode(each).decode('ascii')}\n" for each in self.proof)
        return f"old {self.old}\n{hashes}\n".encode("ascii") + self.note

    @classmethod
    def from_bytes(cls, body: bytes) -> AddCheckpoint:
        """Read a request; nothing in it is verified yet.

        Raises:
            VerificationError: malformed, or too large.
        """
        if len(body) > MAX_REQUEST_BYTES:
            raise _malformed("request", f"at most {MAX_REQUEST_BYTES} bytes", "more")
        head, blank, note = body.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise _malformed("request", "ASCII before the checkpoint", "other bytes") from error
        word, _, size = lines[0].partition(" ")
        if not blank or word != "old" or _SIZE.fullmatch(size) is None:
            raise _malformed("request", "old, a size, and an empty line after the proof", "none")
        if len(lines) - 1 > MAX_HASHES:
            raise _malformed("proof", f"at most {MAX_HASHES} hashes", "more")
        return cls(int(size), tuple(_hash(line) for line in lines[1:]), note)


@dataclass(frozen=True)
class Answer:
    """A witness's answer.

    Attributes:
        status: of HTTP: 200 cosigned; 400 malformed; 403 no valid signature of a known key;
            404 unknown log; 409 another old size; 422 not consistent; the rest is trouble.
        body: cosignature lines of 200, a size of 409; words otherwise.
        kind: content type.
    """

    status: int
    body: bytes
    kind: str = TEXT_TYPE

    @property
    def size(self) -> int | None:
        """The size that a 409 names; None of anything else."""
        text = self.body[:32].decode("ascii", errors="replace")
        is_size = self.status == 409 and text.endswith("\n") and _SIZE.fullmatch(text[:-1])
        return int(text[:-1]) if is_size else None


def size_of_note(note: bytes) -> int:
    """Read the size that a checkpoint claims; nothing is verified.

    Raises:
        VerificationError: there is none.
    """
    lines = note[:1024].split(b"\n")
    text = lines[1].decode("ascii", errors="replace") if len(lines) > 1 else ""
    if _SIZE.fullmatch(text) is None:
        raise _malformed("checkpoint", "a size in its second line", "none")
    return int(text)


def _hash(line: str) -> bytes:
    try:
        data = base64.b64decode(line, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if len(data) != _HASH_BYTES or base64.b64encode(data).decode("ascii") != line:
        raise _malformed("proof", "32 bytes in base64, a line each", "another line")
    return data


def _malformed(field: str, expected: str, got: str) -> VerificationError:
    return VerificationError(
        "a witness's request is malformed", field=field, expected=expected, got=got
    )

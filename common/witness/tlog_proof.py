"""One record and everything that proves it, as one file: ``.tlog-proof``.

Whoever has the file, the site's public key and a witness policy needs nothing else, and
no network: the record stands in the ledger at this place, and that ledger was seen by
those witnesses. The record itself travels as the file's extra data, which proves nothing
until its hash is found in the tree.

Source: C2SP tlog-proof; RFC 6962, section 2.1.1.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from common.errors import VerificationError
from common.ledger.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from common.ledger.notes import Checkpoint, NoteKey, open_note, parse_note
from common.ledger.records import MAX_LINE_BYTES, LedgerRecord, parse_record

SUFFIX = ".tlog-proof"
MAX_PROOF_FILE_BYTES = 4 * MAX_LINE_BYTES
_HEAD = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True)
class TlogProof:
    """A proof as it stands in a file; nothing in it is verified yet.

    Attributes:
        line: canonical line of the record.
        index: its place in the log.
        inclusion: 32-byte hashes from the record to the root.
        note: the checkpoint, with as many cosignatures as there are.
    """

    line: bytes
    index: int
    inclusion: tuple[bytes, ...]
    note: bytes

    def to_bytes(self) -> bytes:
        """Return the file."""
        lines = [_HEAD, f"extra {_b64(self.line)}", f"index {self.index}"]
        lines += [_b64(each) for each in self.inclusion]
        return "".join(f"{line}\n" for line in lines).encode("ascii") + b"\n" + self.note

    @classmethod
    def from_bytes(cls, data: bytes) -> TlogProof:
        """Read a proof file in its one spelling.

        Raises:
            VerificationError: malformed, or without the record.
        """
        if len(data) > MAX_PROOF_FILE_BYTES:
            raise _malformed(f"at most {MAX_PROOF_FILE_BYTES} bytes", "more")
        head, blank, note = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise _malformed("ASCII before the checkpoint", "other bytes") from error
        if not blank or len(lines) < 3 or lines[0] != _HEAD:
            raise _malformed(f"{_HEAD}, extra, index, hashes and a checkpoint", "another layout")
        if not lines[1].startswith("extra ") or not lines[2].startswith("index "):
            raise _malformed("the record as extra data, and its index", "other lines")
        index = lines[2].removeprefix("index ")
        if _INDEX.fullmatch(index) is None or len(lines) - 3 > _MAX_HASHES:
            raise _malformed("an index and at most 63 hashes", "other lines")
        hashes = tuple(_unb64(line) for line in lines[3:])
        if any(len(each) != HASH_BYTES for each in hashes):
            raise _malformed("hashes of 32 bytes", "others")
        return cls(_unb64(lines[1].removeprefix("extra ")), int(index), hashes, note)

    def verify(self, log_key: NoteKey) -> tuple[Checkpoint, LedgerRecord]:
        """Return the checkpoint and the record that is proven to stand in it.

        Whether the checkpoint is witnessed is a question of its own, for a policy.

        Raises:
            VerificationError: a signature or the proof does not hold, or the record says
                another place, or another site, than it has.
        """
        checkpoint = open_note(self.note, [log_key]).checkpoint
        if checkpoint.origin != log_key.name:
            raise _malformed(f"a checkpoint of {log_key.name}", "another log's")
        leaf = leaf_hash(self.line)
        verify_inclusion(leaf, self.index, checkpoint.size, self.inclusion, checkpoint.root)
        record = parse_record(self.line, "proven record")
        if record.seq != self.index or f"{record.site}/ledger" != checkpoint.origin:
            raise _malformed("the place and the site that the record names", "others")
        return checkpoint, record


def merge_notes(notes: Iterable[bytes]) -> list[bytes]:
    """Put the signatures of notes about one checkpoint under one another, largest tree first.

    Raises:
        VerificationError: one is no note.
    """
    together: dict[bytes, dict[tuple[str, bytes], bytes]] = {}
    sizes: dict[bytes, int] = {}
    for note in notes:
        parsed = parse_note(note)
        text = parsed.checkpoint.text()
        sizes[text] = parsed.checkpoint.size
        lines = together.setdefault(text, {})
        for signature in parsed.signatures:
            lines.setdefault((signature.name, signature.key_id), signature.line())
    ordered = sorted(together, key=lambda text: sizes[text], reverse=True)
    return [text + b"\n" + b"".join(together[text].values()) for text in ordered]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise _malformed("base64", "another text") from error
    if _b64(data) != text:
        raise _malformed("base64 in its one spelling", "another")
    return data


def _malformed(expected: str, got: str) -> VerificationError:
    return VerificationError("a proof file does not hold", expected=expected, got=got)

"""The reading half of the journal: every line, its signature, and the chain between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import CairnError, InputDataError, VerificationError
from common.journal.entries import NOTHING_BEFORE, Begin, Entry, parse_entry
from common.journal.identity import certified_key
from common.ledger.reading import read_regular

MAX_JOURNAL_BYTES = 1 << 32


@dataclass(frozen=True)
class Journalled:
    """A journal as far as it holds.

    Attributes:
        entries: in their order, up to the first that does not hold.
        broken: what is wrong with that one; None: all hold.
        node_key: OpenSSH line of the courier that signed; empty where nothing holds.
    """

    entries: tuple[Entry, ...]
    broken: str | None
    node_key: str = ""


def read_journal(
    path: Path, site: str = "", node_key: ec.EllipticCurvePublicKey | None = None
) -> Journalled:
    """Read a courier's journal and check it line by line.

    Args:
        path: of ``journal.jsonl``.
        site: whose it must be; empty: anybody's.
        node_key: of the courier; None believes the journal's own.

    Raises:
        InputDataError: it cannot be read at all, or is no plain file.
    """
    entries: list[Entry] = []
    try:
        lines = _lines(path)
        key = _opening(lines[0], site, node_key)
        before, session = NOTHING_BEFORE, 0
        for seq, line in enumerate(lines):
            entry = parse_entry(line, key, f"line {seq}")
            if (entry.seq, entry.prev) != (seq, before):
                raise _out_of_place(seq)
            if isinstance(entry, Begin):
                session = seq
                _require_same(entry, lines[0], key)
            # Several programs may write at once, each under the BEGIN of its own.
            if not 0 <= entry.session <= session:
                raise _out_of_place(seq)
            before = sha256_hex(line)
            entries.append(entry)
    except InputDataError as error:
        if not entries and error.field == str(path):
            raise
        return Journalled(tuple(entries), error.diagnosis, _node_key(entries))
    except CairnError as error:
        return Journalled(tuple(entries), error.diagnosis, _node_key(entries))
    return Journalled(tuple(entries), None, _node_key(entries))


def _lines(path: Path) -> list[bytes]:
    data = read_regular(path, "courier's journal", MAX_JOURNAL_BYTES)
    # What a crash cut short was never followed by a request.
    whole = data.rpartition(b"\n")[0]
    if not whole:
        raise VerificationError(
            "the journal is empty", field=path.name, expected="at least a BEGIN", got="nothing"
        )
    return whole.split(b"\n")


def _opening(line: bytes, site: str, node_key: ec.EllipticCurvePublicKey | None) -> PublicKey:
    first = parse_entry(line, None, "line 0")
    if not isinstance(first, Begin):
        raise _out_of_place(0)
    if site and first.site != site:
        raise VerificationError(
            "the journal is another site's", field="site", expected=site, got=first.site
        )
    return certified_key(first, node_key)


def _require_same(entry: Begin, first: bytes, key: PublicKey) -> None:
    opening = parse_entry(first, key)
    if not isinstance(opening, Begin) or (
        (entry.site, entry.federation, entry.journal_key, entry.node_key)
        != (opening.site, opening.federation, opening.journal_key, opening.node_key)
    ):
        raise _out_of_place(entry.seq)


def _out_of_place(seq: int) -> VerificationError:
    return VerificationError(
        "the journal's chain does not hold",
        field=f"line {seq}",
        expected="the line that was written there",
        got="another, moved or removed",
    )


def _node_key(entries: list[Entry]) -> str:
    return entries[0].node_key if entries and isinstance(entries[0], Begin) else ""

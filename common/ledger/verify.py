"""The offline audit: is this ledger what the site signed, and who else has seen all of it?

Needs the folder and public keys, no network and no secret. It reads everything
again from the bytes, trusts nothing the writer computed, and reads nothing that is no
plain file. The verdict is one of three: see ``common.ledger.verdict``. What is broken is
named by the first record that is; without a note from elsewhere that covers all records
nothing is called witnessed, for whoever holds the folder can cut the receipts, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import CairnError, InputDataError, VerificationError
from common.ledger.archive import Archive, Opener
from common.ledger.folder import check_folder, receipts_in, witnessed_in
from common.ledger.gaps import LostRecords, check_restore, find_gaps
from common.ledger.layout import MAX_LOG_BYTES, Layout
from common.ledger.lines import LogLines
from common.ledger.merkle import Frontier, leaf_hash
from common.ledger.notes import (
    MAX_NOTE_BYTES,
    WITNESS_NAME,
    Checkpoint,
    ledger_key,
    open_note,
    parse_note,
    site_of,
)
from common.ledger.order_of_records import RecordOrder, dated_before
from common.ledger.reading import UnreadableError, read_if_there
from common.ledger.records import MAX_LINE_BYTES, LedgerRecord, parse_record, record_line
from common.ledger.rotation import WitnessKeys, open_cosigned, open_rotation
from common.ledger.verdict import Breakage, Totals, Verdict
from common.ledger.witnessed import Brought, NoteJudge, OneWitness, Tail, judge_tail

_MAX_REASON = 500
_ATTEMPTS = 10
NO_WITNESS_KEY = "no witness key: a history rewritten by the site itself would not show"


class _BrokenError(Exception):
    """Ends the audit at the first breakage."""

    def __init__(self, breakage: Breakage) -> None:
        super().__init__(str(breakage))
        self.breakage = breakage


@dataclass(frozen=True)
class _Anchor:
    """A root that the log must have had at some size, who says so, and since when."""

    checkpoint: Checkpoint
    name: str
    cosigned: datetime | None = None


@dataclass(frozen=True)
class Required:
    """Everything that an auditor holds a ledger to; none of it comes from the ledger.

    Attributes:
        site_key: the key the site was admitted with.
        witness: the aggregator's key, which must have cosigned every receipt; without it
            receipts are held only to the site's own signature, with a warning.
        judge: whose cosignatures make the end witnessed; by default the witness's alone.
        checkpoints: notes kept elsewhere, e.g. by the aggregator: what exposes a site that
            rewrote its history, and the only thing that can vouch for its end.
        not_before: older cosignatures do not vouch for the end.
        origin: ``<site>/ledger``, when known from elsewhere.
        make_opener: makes who opens what was released, once for a pass over the ledger;
            None to compare digests and sizes alone.
    """

    site_key: PublicKey
    witness: PublicKey | None = None
    judge: NoteJudge | None = None
    checkpoints: tuple[bytes, ...] = ()
    not_before: datetime | None = None
    origin: str | None = None
    make_opener: Callable[[], Opener] | None = None


@dataclass(frozen=True)
class Examined:
    """A ledger after its audit: the verdict, and the records before any breakage."""

    verdict: Verdict
    records: tuple[LedgerRecord, ...]


def verify_ledger(
    directory: Path,
    site_public_key: PublicKey,
    witness_public_key: PublicKey | None,
    known_checkpoints: Iterable[bytes] = (),
    *,
    expected_origin: str | None = None,
) -> Verdict:
    """Audit the ledger in ``directory``; what it is held to is explained in ``Required``.

    Args:
        directory: the ledger's folder, or a copy of it.
        site_public_key: the key the site was admitted with.
        witness_public_key: the aggregator's.
        known_checkpoints: notes kept elsewhere.
        expected_origin: ``<site>/ledger``, when known from elsewhere.

    Raises:
        InputDataError: a file cannot be read at all. Everything else is in the verdict.
    """
    required = Required(
        site_public_key,
        witness_public_key,
        checkpoints=tuple(known_checkpoints),
        origin=expected_origin,
    )
    return examine_ledger(directory, required).verdict


def examine_ledger(directory: Path, required: Required) -> Examined:
    """Audit a ledger, which may be in use: again, as long as it is broken and moves meanwhile.

    Raises:
        InputDataError: no such folder, or a file cannot be read at all.
    """
    layout = Layout(directory)
    if not directory.is_dir():
        raise InputDataError(
            "no ledger here", field=str(directory), expected="a ledger's folder", got="none"
        )
    for _ in range(_ATTEMPTS):
        audit = _Audit(layout, required)
        examined = audit.examine()
        if examined.verdict.intact or not audit.has_moved():
            break
    return examined


class _Audit:
    """One pass over a ledger; holds what has been established so far."""

    def __init__(self, layout: Layout, required: Required) -> None:
        self._layout = layout
        self._required = required
        self._archive = Archive(layout)
        self._opener = None if required.make_opener is None else required.make_opener()
        self._order = RecordOrder()
        self._site = ""
        self._note: bytes | None = None
        self._records: list[LedgerRecord] = []
        self._receipts: dict[str, _Anchor] = {}  # by digest of the note
        self._anchors: dict[int, list[_Anchor]] = {}
        self._tail = Tail()
        self._brought: list[Brought] = []
        self._gaps: tuple[LostRecords, ...] = ()
        self._lost: set[str] = set()  # notes about records that a restore has lost
        self._witnessed_size = 0
        self._keys: WitnessKeys | None = None
        self._rotations = 0
        self._agreed = 0  # up to this size the log matches something signed
        self._warnings: list[str] = []
        self._doubts: list[str] = []
        self._dates_doubted = False

    def examine(self) -> Examined:
        """Check everything, and sum up what can be believed."""
        broken: Breakage | None = None
        try:
            self._run()
        except _BrokenError as error:
            broken = error.breakage
        believed = tuple(self._records if broken is None else self._records[: broken.seq or 0])
        totals = Totals.of(believed, self._archive.present, self._archive.expired)
        verdict = Verdict(
            site=self._site,
            broken=broken,
            totals=totals,
            receipts=len(self._receipts),
            witnessed_size=self._witnessed_size,
            warnings=tuple(self._warnings),
            tail=self._tail,
            doubts=tuple(self._doubts),
            gaps=self._gaps,
        )
        return Examined(verdict, believed)

    def has_moved(self) -> bool:
        """Tell whether the site's checkpoint is another now: a writer is at work."""
        try:
            return self._read_checkpoint() != self._note
        except (CairnError, OSError):
            return False

    def _run(self) -> None:
        """Check everything, each step resting on the ones before."""
        signed = self._open_checkpoint()
        if self._required.witness is not None:
            with _breaking(None):
                self._keys = WitnessKeys.of(self._layout, self._required.witness)
        self._take_brought(signed)
        self._take_receipts(signed)
        self._take_witnessed(signed)
        with _breaking(None):
            first = self._keys.first if self._keys else None
            self._doubts += check_folder(self._layout, self._required.site_key, first)
        with _breaking(None, "a restore record cannot be read"):
            sizes = [each.checkpoint.size for each in self._receipts.values()]
            self._gaps = find_gaps(self._layout.log, signed.size, sizes)
        frontier = self._read_log(signed)
        self._check_end(frontier.size)
        if self._lost:
            self._judge_tail(signed)
        self._doubts += [gap.says for gap in self._gaps]
        if self._keys is not None and self._rotations != len(self._keys.notes):
            raise _broken(None, "an exchange of the aggregator's key lies there that no record has")
        missing = self._archive.missing()
        if missing is not None:
            raise _broken(missing, "its payload is gone, and no EXPIRE record says why")
        with _breaking(None):
            leftovers = self._archive.leftovers()
        if leftovers.unnamed:
            self._doubts.append(f"{leftovers.unnamed} archived files belong to no record")
        if leftovers.temporary:
            self._doubts.append(
                f"{leftovers.temporary} files of interrupted writes lie in the archive"
            )

    def _read_checkpoint(self) -> bytes | None:
        return read_if_there(self._layout.checkpoint, "checkpoint", MAX_NOTE_BYTES)

    def _open_checkpoint(self) -> Checkpoint:
        with _breaking(None):
            self._note = note = self._read_checkpoint()
        if note is None:
            raise _broken(None, "the signed checkpoint is missing")
        with _breaking(None, "the checkpoint does not hold"):
            origin = parse_note(note).checkpoint.origin
            signed = open_note(note, [ledger_key(origin, self._required.site_key)]).checkpoint
        self._site = site_of(origin)
        if self._required.origin not in (None, origin):
            raise _broken(None, f"this is the ledger {origin}, not {self._required.origin}")
        self._anchor(_Anchor(signed, "the site's checkpoint"))
        return signed

    def _take_brought(self, signed: Checkpoint) -> None:
        """Take the notes from elsewhere, and have them judged."""
        for number, note in enumerate(self._required.checkpoints, start=1):
            name = f"known checkpoint {number}"
            opened = self._open(note, name, signed.origin, None)
            self._anchor(opened)
            self._brought.append(Brought(name, opened.checkpoint.size, note))
        self._judge_tail(signed)

    def _judge_tail(self, signed: Checkpoint) -> None:
        """Have the notes from elsewhere judged; one about lost records says nothing of these."""
        brought = tuple(each for each in self._brought if each.name not in self._lost)
        judge = self._required.judge or (OneWitness(self._keys.newest) if self._keys else None)
        limit = self._required.not_before
        self._tail = judge_tail(signed.size, brought, judge, not_before=limit)
        self._witnessed_size = max(self._tail.witnessed, self._receipted)

    @property
    def _receipted(self) -> int:
        """Size of the newest receipt, if it was held to the witness's key."""
        sizes = (each.checkpoint.size for each in self._receipts.values())
        return 0 if self._keys is None else max(sizes, default=0)

    def _take_receipts(self, signed: Checkpoint) -> None:
        if self._keys is None:
            self._warnings.append(NO_WITNESS_KEY)
        with _breaking(None):
            for name, digest, note in receipts_in(self._layout):
                anchor = self._open(note, f"receipt {name}", signed.origin, self._keys)
                if name != self._layout.receipt(anchor.checkpoint.size).name:
                    raise _broken(None, f"receipt {name} is of another size than its name")
                self._anchor(anchor)
                self._receipts[digest] = anchor
        self._witnessed_size = max(self._witnessed_size, self._receipted)

    def _take_witnessed(self, signed: Checkpoint) -> None:
        """Hold the log against what third witnesses cosigned; whose word counts is the judge's."""
        with _breaking(None):
            for name, note in witnessed_in(self._layout):
                anchor = self._open(note, f"witnessed note {name}", signed.origin, None)
                if name != self._layout.witnessed_note(anchor.checkpoint.size).name:
                    raise _broken(None, f"witnessed note {name} is of another size than its name")
                self._anchor(anchor)

    def _open(self, note: bytes, name: str, origin: str, cosigned: WitnessKeys | None) -> _Anchor:
        site_key = ledger_key(origin, self._required.site_key)
        with _breaking(None, f"{name} does not hold"):
            other = parse_note(note).checkpoint.origin
            if other != origin:
                raise _broken(None, f"{name} is about the ledger {other}")
            opened = (
                open_cosigned(note, site_key, cosigned) if cosigned else open_note(note, [site_key])
            )
        return _Anchor(opened.checkpoint, name, opened.cosigned_at.get(WITNESS_NAME))

    def _anchor(self, anchor: _Anchor) -> None:
        self._anchors.setdefault(anchor.checkpoint.size, []).append(anchor)

    def _read_log(self, signed: Checkpoint) -> Frontier:
        frontier = Frontier()
        self._check_anchors(frontier, None)
        with _breaking(None), LogLines.open(self._layout.log, MAX_LOG_BYTES) as lines:
            before = None
            for seq in range(signed.size):
                line = lines.read()
                if line is None:
                    break
                record = self._read_record(seq, line, before)
                before = leaf_hash(line)
                frontier.add(before)
                self._check_anchors(frontier, lines)
                with _breaking(seq):
                    self._check_receipt(record)
                    check_restore(self._layout, record, self._open_lost)
                    self._check_rotation(record)
                    self._archive.follow(record, self._opener)
            if frontier.size == signed.size:
                self._check_rest(signed.size, lines, before)
        return frontier

    def _read_record(self, seq: int, line: bytes, before: bytes | None) -> LedgerRecord:
        with _breaking(seq):
            record = parse_record(line, "record")
            self._order.require_place(record, seq)
        if record.prev != (None if before is None else before.hex()):
            reason = "this or the next record was altered: the next one is chained to another"
            raise _broken(max(seq - 1, 0), reason)
        with _breaking(seq):
            self._order.follow(record, self._site)
        self._records.append(record)
        return record

    def _check_anchors(self, frontier: Frontier, lines: LogLines | None) -> None:
        """Compare the root at this size with everything that was ever signed about it."""
        anchors = self._anchors.get(frontier.size)
        if not anchors:
            return
        root, last = frontier.root(), frontier.size - 1
        for anchor in anchors:
            if anchor.checkpoint.root != root:
                if self._is_lost(anchor):
                    continue
                raise self._mismatch(anchor, last, lines)
            if anchor.cosigned is not None and self._records:
                self._doubt_date(last, self._order.differs(anchor.cosigned))
            self._agreed = frontier.size

    def _is_lost(self, anchor: _Anchor) -> bool:
        """Tell whether a note from elsewhere is about records that a restore has lost."""
        from_elsewhere = any(each.name == anchor.name for each in self._brought)
        if from_elsewhere and any(gap.explains(anchor.checkpoint) for gap in self._gaps):
            self._lost.add(anchor.name)
        return anchor.name in self._lost

    def _mismatch(self, anchor: _Anchor, last: int, lines: LogLines | None) -> _BrokenError:
        """Name the record that made a root another: by the link of the next, or by a range."""
        if last <= self._agreed or (lines is not None and not self._is_linked_to(lines.read())):
            return _broken(max(last, 0), f"does not match {anchor.name}")
        # Nothing signed in between tells which of them it is.
        reason = f"this or a later record up to #{last} does not match {anchor.name}"
        return _broken(self._agreed, reason)

    def _is_linked_to(self, line: bytes | None) -> bool:
        """Tell whether the next line, if there is a readable one, goes on from the last record."""
        if line is None:
            return True
        try:
            following = parse_record(line, "record")
        except VerificationError:
            return True
        return following.prev == leaf_hash(record_line(self._records[-1])).hex()

    def _open_lost(self, note: bytes, origin: str) -> Checkpoint:
        """Open the checkpoint of what a restore has lost; both must have signed it."""
        own = ledger_key(origin, self._required.site_key)
        if self._keys is None:
            return open_note(note, [own]).checkpoint
        return open_cosigned(note, own, self._keys).checkpoint

    def _check_rotation(self, record: LedgerRecord) -> None:
        """Hold a ROTATE record against the exchange that lies beside the log under its number."""
        if record.event != "ROTATE" or self._keys is None:
            return
        data = dict(self._keys.notes).get(record.seq)
        if data is None or sha256_hex(data) != record.payload_sha256:
            raise _broken(record.seq, "the exchange of keys it records is missing or altered")
        if open_rotation(data).new.fingerprint != record.peer_key:
            raise _broken(record.seq, "the exchange it records is to another key")
        self._rotations += 1

    def _check_receipt(self, record: LedgerRecord) -> None:
        if record.event != "RECEIPT":
            return
        anchor = self._receipts.get(record.payload_sha256 or "")
        if anchor is None:
            raise _broken(record.seq, "the receipt it records is missing or altered")
        if anchor.checkpoint.size > record.seq:
            raise _broken(record.seq, "the receipt it records is of later records")
        if anchor.cosigned is not None:
            self._doubt_date(record.seq, dated_before(record, anchor.cosigned))

    def _doubt_date(self, seq: int, differs: str | None) -> None:
        """Note the first record whose date a witness contradicts."""
        if differs is not None and not self._dates_doubted:
            self._dates_doubted = True
            self._doubts.append(f"record #{seq} is {differs}: its dates are not vouched for")

    def _check_end(self, size: int) -> None:
        """Check that the log reaches as far as anything signed."""
        for longer in sorted(larger for larger in self._anchors if larger > size):
            anchors = [each for each in self._anchors[longer] if not self._is_lost(each)]
            if not anchors:
                continue
            who = anchors[0].name
            raise _broken(size, f"is missing: {who} covers {longer} records")

    def _check_rest(self, size: int, lines: LogLines, before: bytes | None) -> None:
        """Check what follows the signed records: at most one that an append left unfinished."""
        rest = lines.rest()
        if not rest:
            return
        line, end, further = rest.partition(b"\n")
        if further or lines.more() or len(line) > MAX_LINE_BYTES:
            raise _broken(size, f"goes past the checkpoint of {size} records")
        if end:
            with _breaking(size, "goes past the checkpoint, and no append leaves such a line"):
                record = parse_record(line, "record")
            if (record.seq, record.prev) != (size, before.hex() if before else None):
                raise _broken(size, "goes past the checkpoint, and no append leaves such a line")
        self._doubts.append("one unfinished record after the checkpoint, never released")


class _breaking:  # noqa: N801 - reads as a statement: with _breaking(seq)
    """Turn whatever does not hold inside into a breakage at ``seq``."""

    def __init__(self, seq: int | None, clause: str = "") -> None:
        self._seq, self._clause = seq, clause

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UnreadableError):
            return  # a file that cannot be read is no verdict
        if isinstance(error, CairnError | RecursionError):
            said = str(error) if isinstance(error, CairnError) else "nested beyond all reading"
            raise _broken(self._seq, f"{self._clause} ({said})" if self._clause else said) from (
                error
            )


def _broken(seq: int | None, reason: str) -> _BrokenError:
    # A tampered line may carry a key name made of terminal escapes: never hand them on.
    printable = "".join(c if c.isprintable() else "?" for c in reason[:_MAX_REASON])
    return _BrokenError(Breakage(seq, printable))

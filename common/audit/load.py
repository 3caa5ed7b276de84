"""Verify a ledger and read what can be believed of it, for the commands to show.

Records at and after the first broken one are never handed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from common.audit.opened import ReleaseOpener
from common.cli import megabytes
from common.crypto.identity import PublicKey, read_public_key
from common.errors import InputDataError, UsageError
from common.journal import Balance, Evidence, weigh
from common.ledger.layout import MAX_KEY_BYTES, Layout
from common.ledger.notes import MAX_NOTE_BYTES
from common.ledger.reading import names_in, read_if_there, read_regular
from common.ledger.records import LedgerRecord, format_timestamp
from common.ledger.verdict import Finding, Verdict
from common.ledger.verify import Examined, Required, examine_ledger
from common.ledger.witnessed import NoteJudge

OWN_KEY_CAVEAT = (
    "taken from the ledger's own folder: this proves that the ledger agrees with itself. "
    "Compare the fingerprint with the one the coordinator holds"
)


_WORDS = {
    Finding.WITNESSED: "chain intact and witnessed",
    Finding.NOT_WITNESSED: "chain intact, its end NOT WITNESSED",
    Finding.BROKEN: "INCOMPLETE, chain intact",
}


@dataclass(frozen=True)
class Key:
    """A public key and whether the auditor brought it or found it in the ledger."""

    public: PublicKey
    from_ledger: bool

    def describe(self) -> str:
        """Fingerprint and provenance, for a person."""
        origin = OWN_KEY_CAVEAT if self.from_ledger else "given by you"
        return f"{self.public.fingerprint} ({origin})"

    def as_dict(self) -> dict[str, object]:
        """Return the same for ``--json``."""
        return {"fingerprint": self.public.fingerprint, "from_ledger": self.from_ledger}


@dataclass(frozen=True)
class Audited:
    """A ledger after its audit.

    Attributes:
        folder: where it lies.
        verdict: what the audit found.
        records: the records before any breakage.
        key, witness: the keys it was held to.
        balance: of ledger, courier's journal and counters; None where no journal was given,
            or the chain is broken.
    """

    folder: Path
    verdict: Verdict
    records: tuple[LedgerRecord, ...]
    key: Key
    witness: Key | None
    balance: Balance | None = None


def audit(
    folder: Path,
    *,
    key_file: Path | None,
    witness_file: Path | None,
    courier: Evidence | None = None,
    known_checkpoints: Sequence[Path] = (),
    judge: NoteJudge | None = None,
    not_before: datetime | None = None,
    beside: Sequence[bytes] = (),
) -> Audited:
    """Verify the ledger in ``folder``; keys not given are taken from the folder itself.

    Args:
        folder: the ledger's.
        key_file: the site's public key.
        witness_file: the aggregator's.
        courier: its courier's journal and counters; not looked at when the chain is broken.
        known_checkpoints: notes that did not come with the ledger.
        judge: whose cosignatures under those make its end witnessed; by default the
            aggregator's alone.
        not_before: older cosignatures do not.
        beside: notes from the ledger's own folder, which may vouch for its end while a
            quorum's cosignatures under them are fresh; without ``not_before`` none is.

    Raises:
        InputDataError: no ledger, no key, or a file that cannot be read.
    """
    layout = Layout(folder)
    if not folder.is_dir():
        raise InputDataError(
            "no ledger here", field=str(folder), expected="a ledger's folder", got="none"
        )
    key = _key(key_file, folder, layout.ledger_key)
    if key is None:
        raise InputDataError(
            "no key to verify the ledger with",
            field=str(layout.ledger_key),
            expected="the site's public key",
            got="no file",
            advice="Give it with --key FILE",
        )
    witness = _key(witness_file, folder, layout.witness_key)
    witness_key = witness.public if witness else None
    inside = [path for path in known_checkpoints if _lies_in(path, folder)]
    if inside:
        raise UsageError(
            "a checkpoint out of the ledger's own folder proves nothing about it",
            field="--checkpoint",
            expected="a file from elsewhere",
            got=inside[0].name,
        )
    brought = [read_regular(path, "known checkpoint", MAX_NOTE_BYTES) for path in known_checkpoints]
    fresh = () if judge is None or not_before is None else tuple(beside)
    required = Required(
        key.public,
        witness_key,
        judge=judge,
        checkpoints=(*brought, *fresh),
        not_before=not_before,
        make_opener=lambda: ReleaseOpener(folder, witness_key),
    )
    examined = examine_ledger(folder, required)
    balance = _balance(courier, layout, examined) if courier is not None else None
    doubts = [*examined.verdict.doubts, *_of_keys(key, witness, judge)]
    if courier is not None and courier.courier_key is None:
        doubts.append("the courier's key came with its journal: give it with --courier-key")
    verdict = replace(
        examined.verdict,
        doubts=tuple(doubts),
        balanced=None if balance is None else balance.holds,
    )
    return Audited(folder, verdict, examined.records, key, witness, balance)


def _balance(courier: Evidence, layout: Layout, examined: Examined) -> Balance | None:
    """Weigh what is believed of a ledger; None where its chain is broken."""
    if not examined.verdict.intact:
        return None
    names = (Path(name) for name in names_in(layout.receipts, "receipts"))
    cosigned = {int(name.stem) for name in names if name.stem.isdigit()}
    return weigh(courier, examined.verdict.site, examined.records, cosigned)


def _of_keys(key: Key, witness: Key | None, judge: NoteJudge | None) -> list[str]:
    """Say what keys that came with the ledger are worth."""
    doubts = []
    if key.from_ledger:
        doubts.append("the site's key came with the ledger: give it with --key")
    if witness is not None and witness.from_ledger and judge is None:
        doubts.append("the witness's key came with the ledger: give it with --witness")
    return doubts


def verdict_line(audited: Audited) -> str:
    """Put the verdict in a line: ``site-a: chain intact and witnessed, 412 records, …``."""
    verdict = audited.verdict
    name = verdict.site or str(audited.folder)
    if verdict.broken is not None:
        return f"{name}: BROKEN at {verdict.broken}"
    totals = verdict.totals
    parts = [
        _WORDS[verdict.finding],
        _count(totals.records, "record"),
        _count(totals.rounds, "round"),
        f"{megabytes(totals.bytes_out)} out",
    ]
    if audited.balance is None:
        parts.append("completeness not checked")
    else:
        parts.append(f"{100 * audited.balance.share:.1f} % of the wire unexplained")
    return f"{name}: {', '.join(parts)}"


def detail_lines(audited: Audited, *, balance: bool = True) -> list[str]:
    """List the lines under the verdict: keys, receipts, payloads, warnings.

    Args:
        audited: the ledger after its audit.
        balance: whether the balance of the wire is among them.
    """
    verdict = audited.verdict
    totals = verdict.totals
    lines = [f"key {audited.key.describe()}"]
    if audited.witness is not None:
        lines.append(f"witness {audited.witness.describe()}")
    lines.append(
        f"{_count(verdict.receipts, 'receipt')}, covering {verdict.witnessed_size} records; "
        f"{_count(totals.events['REFUSE'], 'refusal')}; "
        f"payloads: {totals.payloads_present} on file and unaltered, "
        f"{totals.payloads_expired} deleted by rule"
    )
    lines.append(_tail_line(verdict))
    if audited.balance is None:
        lines.append(
            "completeness was not compared, the chain being broken"
            if verdict.broken
            else "for completeness, give the courier's journal with --journal FILE"
        )
    elif balance:
        lines += audited.balance.text_lines()
    lines += [f"NOT WITNESSED: {each}" for each in verdict.all_doubts]
    lines += [f"warning: {each}" for each in verdict.warnings]
    return lines


def _tail_line(verdict: Verdict) -> str:
    """Say who else has seen the end of the log."""
    tail = verdict.tail
    if not tail.witnessed:
        return "end: nobody outside of this ledger vouches for it"
    seen = "" if tail.at is None else f", {format_timestamp(tail.at)}"
    return f"end: {tail.witnessed} of {tail.size} records seen by {', '.join(tail.who)}{seen}"


def verdict_dict(audited: Audited) -> dict[str, object]:
    """Return the verdict for ``--json``."""
    verdict = audited.verdict
    totals = verdict.totals
    broken = verdict.broken
    return {
        "ledger": str(audited.folder),
        "site": verdict.site,
        "verdict": verdict.finding.value,
        "intact": verdict.intact,
        "passed": verdict.passed,
        "doubts": list(verdict.all_doubts),
        "restored": [gap.as_dict() for gap in verdict.gaps],
        "end": {
            "records": verdict.tail.size,
            "witnessed": verdict.tail.witnessed,
            "by": list(verdict.tail.who),
            "at": format_timestamp(verdict.tail.at) if verdict.tail.at else None,
        },
        "broken": {"seq": broken.seq, "reason": broken.reason} if broken else None,
        "records": totals.records,
        "events": dict(sorted(totals.events.items())),
        "rounds": totals.rounds,
        "bytes_out": totals.bytes_out,
        "bytes_by_round": [
            {"run": run, "round": number, "bytes": size}
            for (run, number), size in sorted(totals.bytes_by_round.items())
        ],
        "bytes_by_type": dict(sorted(totals.bytes_by_type.items())),
        "payloads_present": totals.payloads_present,
        "payloads_expired": totals.payloads_expired,
        "plan_fingerprints": sorted(totals.plan_fingerprints),
        "policy_digests": sorted(totals.policy_digests),
        "receipts": verdict.receipts,
        "witnessed_size": verdict.witnessed_size,
        "warnings": list(verdict.warnings),
        "balance": None if audited.balance is None else audited.balance.as_dict(),
        "key": audited.key.as_dict(),
        "witness": audited.witness.as_dict() if audited.witness else None,
    }


def _key(option: Path | None, folder: Path, default: Path) -> Key | None:
    path = default if option is None else option
    data = read_if_there(path, "key file", MAX_KEY_BYTES)
    if data is None and option is None:
        return None
    key = (
        read_public_key(path) if data is None else PublicKey.parse(data.decode("ascii", "replace"))
    )
    return Key(key, from_ledger=_lies_in(path, folder))


def _lies_in(path: Path, folder: Path) -> bool:
    """Tell whether a file came with the ledger, wherever the auditor says it is."""
    return folder.resolve() in path.resolve().parents


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")

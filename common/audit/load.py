"""Verify a ledger and read what can be believed of it, for the commands to show.

Records at and after the first broken one are never handed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.cli import megabytes
from common.crypto.identity import PublicKey, read_public_key
from common.errors import InputDataError
from common.journal import Balance, Evidence, weigh
from common.ledger.layout import Layout, read_bytes
from common.ledger.records import LedgerRecord, parse_record
from common.ledger.verdict import Verdict
from common.ledger.verify import verify_ledger

OWN_KEY_CAVEAT = (
    "taken from the ledger's own folder: this proves that the ledger agrees with itself. "
    "Compare the fingerprint with the one the coordinator holds"
)


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

    @property
    def passed(self) -> bool:
        """Intact, and in balance with the courier's journal if one was given."""
        return self.verdict.intact and (self.balance is None or self.balance.holds)


def audit(
    folder: Path,
    *,
    key_file: Path | None,
    witness_file: Path | None,
    courier: Evidence | None = None,
    known_checkpoints: Sequence[Path] = (),
) -> Audited:
    """Verify the ledger in ``folder``; keys not given are taken from the folder itself.

    Raises:
        InputDataError: no ledger, no key, or a file that cannot be read.
    """
    layout = Layout(folder)
    if not folder.is_dir():
        raise InputDataError(
            "no ledger here", field=str(folder), expected="a ledger's folder", got="none"
        )
    key = _key(key_file, layout.ledger_key)
    if key is None:
        raise InputDataError(
            "no key to verify the ledger with",
            field=str(layout.ledger_key),
            expected="the site's public key",
            got="no file",
            advice="Give it with --key FILE",
        )
    witness = _key(witness_file, layout.witness_key)
    verdict = verify_ledger(
        folder,
        key.public,
        witness.public if witness else None,
        [read_bytes(path, "known checkpoint") for path in known_checkpoints],
    )
    records = _records(layout, verdict.totals.records)
    balance = None
    if courier is not None and verdict.intact:
        cosigned = {int(path.stem) for path in layout.receipt_files()}
        balance = weigh(courier, verdict.site, records, cosigned)
    return Audited(folder, verdict, records, key, witness, balance)


def verdict_line(audited: Audited) -> str:
    """Put the verdict in a line: ``site-a: 412 records, chain intact, 3 rounds, 30.1 MB out``."""
    verdict = audited.verdict
    name = verdict.site or str(audited.folder)
    if verdict.broken is not None:
        return f"{name}: BROKEN at {verdict.broken}"
    totals = verdict.totals
    parts = [
        _count(totals.records, "record"),
        "chain intact",
        _count(totals.rounds, "round"),
        f"{megabytes(totals.bytes_out)} out",
    ]
    if audited.balance is None:
        parts.append("completeness not checked")
    else:
        share = 100 * audited.balance.share
        parts.append(f"{share:.1f} % of the wire unexplained")
        if not audited.balance.holds:
            parts.append("the courier's journal DOES NOT HOLD")
    return f"{name}: {', '.join(parts)}"


def detail_lines(audited: Audited) -> list[str]:
    """List the lines under the verdict: keys, receipts, payloads, warnings."""
    verdict = audited.verdict
    totals = verdict.totals
    lines = [f"key {audited.key.describe()}"]
    if audited.witness is not None:
        lines.append(f"witness {audited.witness.describe()}")
    lines.append(
        f"{_count(verdict.receipts, 'receipt')}, covering {verdict.witnessed_size} records; "
        f"{_count(totals.events['REFUSE'], 'refusal')}; "
        f"payloads: {totals.payloads_present} on file and unaltered, "
        f"{totals.payloads_expired} no longer on file"
    )
    if audited.balance is None:
        lines.append(
            "completeness was not compared, the chain being broken"
            if verdict.broken
            else "for completeness, give the courier's journal with --journal FILE"
        )
    else:
        lines += audited.balance.text_lines()
    lines += [f"warning: {each}" for each in verdict.warnings]
    return lines


def verdict_dict(audited: Audited) -> dict[str, object]:
    """Return the verdict for ``--json``."""
    verdict = audited.verdict
    totals = verdict.totals
    broken = verdict.broken
    return {
        "ledger": str(audited.folder),
        "site": verdict.site,
        "intact": verdict.intact,
        "passed": audited.passed,
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


def _key(option: Path | None, default: Path) -> Key | None:
    if option is not None:
        return Key(read_public_key(option), from_ledger=False)
    return Key(read_public_key(default), from_ledger=True) if default.exists() else None


def _records(layout: Layout, believable: int) -> tuple[LedgerRecord, ...]:
    if believable == 0:
        return ()
    lines = read_bytes(layout.log, "log").split(b"\n")[:believable]
    return tuple(parse_record(line, f"record #{seq}") for seq, line in enumerate(lines))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")

"""One order as it lies in a ledger's archive: its words, and whether the aggregator signed it.

A record names the order that it answers by digest and keeps the signature over it, so
an auditor can tell, years later and offline, what exactly was asked and by whom.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from common.audit.asked import from_archive
from common.audit.load import Audited
from common.canonical import parse_canonical_json, sha256_hex
from common.cli import shown
from common.errors import CairnError, InputDataError, UsageError, VerificationError
from common.ledger.layout import Layout
from common.ledger.records import LedgerRecord
from common.ledger.rotation import WitnessKeys
from common.plan import FederationPlan, parse_plan
from common.wire.orders import SIGNATURE_CONTEXT

LEAST_DIGITS = 8
_LONGEST = 200
Signature = Literal["holds", "fails", "unrecorded", "no witness key"]


@dataclass(frozen=True)
class ArchivedOrder:
    """An order that was answered.

    Attributes:
        digest: SHA-256 of its bytes.
        records: numbers of the records that name it.
        facts: what it says, name and value.
        plan: that it carries, or None if it is none that this release knows.
        signature: whether the aggregator's signature over its bytes holds.
        disagreements: what its records say and it does not.
    """

    digest: str
    records: tuple[int, ...]
    facts: tuple[tuple[str, str], ...]
    plan: FederationPlan | None
    signature: Signature
    disagreements: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """True if it was signed by the aggregator and says what its records say."""
        return self.signature == "holds" and not self.disagreements

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "order_sha256": self.digest,
            "records": list(self.records),
            "signature": self.signature,
            "disagreements": list(self.disagreements),
            "facts": [{"name": name, "value": value} for name, value in self.facts],
        }


def read_order(audited: Audited, prefix: str) -> ArchivedOrder:
    """Return the order whose digest begins with ``prefix``, from the archive.

    Raises:
        UsageError: too few digits, or none or several orders begin like that.
        InputDataError: it is not in the archive.
        VerificationError: other bytes lie in its place.
    """
    digest = _find(audited, prefix)
    naming = [record for record in audited.records if record.order_sha256 == digest]
    data = _bytes(audited, digest)
    try:
        words = parse_canonical_json(data, "order")
    except VerificationError:
        words = None
    said = words if isinstance(words, dict) else {}
    plan, text = _plan(said)
    return ArchivedOrder(
        digest=digest,
        records=tuple(record.seq for record in naming),
        facts=tuple(_facts(said, plan, len(data))),
        plan=plan,
        signature=_signature(audited, naming, data),
        disagreements=tuple(_disagreements(said, text, naming)),
    )


def _find(audited: Audited, prefix: str) -> str:
    if not re.fullmatch(f"[0-9a-f]{{{LEAST_DIGITS},64}}", prefix):
        raise UsageError(
            "this names no order",
            field="--order",
            expected=f"{LEAST_DIGITS} to 64 hexadecimal digits of its digest",
            got="another word",
        )
    digests = dict.fromkeys(r.order_sha256 for r in audited.records if r.order_sha256)
    matches = [digest for digest in digests if digest.startswith(prefix)]
    broken = audited.verdict.broken
    if not matches and broken is not None:
        raise VerificationError(
            "no record before the breakage answers such an order",
            field="ledger",
            expected="intact",
            got=f"BROKEN at {broken}",
        )
    if len(matches) != 1:
        raise UsageError(
            "no record answers such an order" if not matches else "several orders begin like that",
            field="--order",
            expected="the beginning of exactly one order's digest",
            got=f"{len(matches)} orders",
        )
    return matches[0]


def _bytes(audited: Audited, digest: str) -> bytes:
    data = from_archive(Layout(audited.folder), digest)
    if data is None:
        raise InputDataError(
            "this order is not in the archive",
            field=digest[:16],
            expected="a file in payloads/",
            got="none",
            advice="It may have expired, or the copy of the ledger came without payloads",
        )
    return data


def _plan(said: dict[str, object]) -> tuple[FederationPlan | None, bytes]:
    text = said.get("plan")
    data = text.encode("utf-8") if isinstance(text, str) else b""
    try:
        return parse_plan(parse_canonical_json(data, "plan")), data
    except CairnError:
        return None, data


def _facts(
    said: dict[str, object], plan: FederationPlan | None, size: int
) -> list[tuple[str, str]]:
    """Known words in an order that reads well, then every other word as it stands."""
    if not said:
        return [("order", f"{size:,} bytes that are no order in words of this release")]
    facts = [("order", f"{said.get('phase')} of round {said.get('round')}, {said.get('run')}")]
    name = "one that this release does not know" if plan is None else f"{plan.name} ({plan.kind})"
    text = said.get("plan")
    if isinstance(text, str):
        facts.append(("plan", f"{name}, fingerprint {sha256_hex(text.encode('utf-8'))}"))
    facts.append(("deadline", f"{said.get('deadline_s')} s"))
    facts += _roster(said.get("roster"))
    facts.append(("sum", str(said.get("sum") or "none: this round begins from none")))
    covered = {"v", "message", "run", "round", "phase", "plan", "deadline_s", "roster", "sum"}
    for name in sorted(said.keys() - covered):
        value = said[name]
        spelt = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        cut = spelt if len(spelt) <= _LONGEST else f"{spelt[:_LONGEST]}… ({len(spelt):,} letters)"
        facts.append((name, cut))
    return [(shown(name), shown(value)) for name, value in facts]


def _roster(entries: object) -> list[tuple[str, str]]:
    facts = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            rest = {n: v for n, v in entry.items() if n not in ("site", "ledger_key", "samples")}
            more = f", {json.dumps(rest)}" if rest else ""
            facts.append(
                (
                    "beside",
                    f"{entry.get('site')}, ledger key {entry.get('ledger_key')}, at most "
                    f"{entry.get('samples')} samples{more}",
                )
            )
    return facts


def _signature(audited: Audited, naming: list[LedgerRecord], data: bytes) -> Signature:
    """Every signature that a record keeps of this order must hold, and there must be one."""
    signed = {(r.order_signature, r.seq) for r in naming if r.order_signature}
    if not signed:
        return "unrecorded"
    if audited.witness is None:
        return "no witness key"
    for signature, seq in signed:
        try:
            keys = WitnessKeys.of(Layout(audited.folder), audited.witness.public)
            keys.of_record(seq).verify(bytes.fromhex(signature), SIGNATURE_CONTEXT + data)
        except VerificationError:
            return "fails"
    return "holds"


def _disagreements(said: dict[str, object], plan: bytes, naming: list[LedgerRecord]) -> list[str]:
    """List where a record says another run, round, phase or plan than the order it names."""
    disagreements = []
    for record in naming:
        values = {
            "run": (record.run, said.get("run")),
            "round": (record.round, said.get("round")),
            "phase": (record.phase, said.get("phase")),
            "plan": (record.plan_fingerprint, sha256_hex(plan)),
        }
        disagreements += [
            f"record #{record.seq} says another {name} than the order"
            for name, (recorded, ordered) in values.items()
            if recorded is not None and recorded != ordered
        ]
    return disagreements

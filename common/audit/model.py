"""A model's folder held against the ledgers of the sites that it names.

A ledger shows, signed by the site and witnessed, that it answered the rounds of this run; the
orders in its archive name the sum of the round before, signed by the aggregator; and its last
report names the weights that the site itself came to. Offline, with public keys alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from common.audit.asked import from_archive
from common.audit.load import Audited, verdict_line
from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import CairnError, VerificationError
from common.ledger.layout import Layout
from common.ledger.records import LedgerRecord
from common.ledger.verdict import Finding
from common.released.checking import Check
from common.released.provenance import Provenance
from common.wire.envelope import decode
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, decode_order
from common.wire.records import ModelUpdate, RoundReport

_DIGITS: Final = 16
_UPDATE, _REPORT = ModelUpdate.__name__, RoundReport.__name__


@dataclass(frozen=True)
class _Ledger:
    """One ledger, and the model that it is held against."""

    audited: Audited
    origin: Provenance
    key: PublicKey

    @property
    def site(self) -> str:
        """The site that a ledger is of, by its own checkpoint."""
        return self.audited.verdict.site or self.audited.folder.name

    def sent(self, record_type: str) -> dict[int, LedgerRecord]:
        """Return what it released of one type in this run, by round; the last of each."""
        return {
            record.round: record
            for record in self.audited.records
            if record.event == "SEND"
            and record.run == self.origin.run
            and record.record_type == record_type
            and record.round is not None
            and record.code is None
        }


def check_ledger(audited: Audited, origin: Provenance, key: PublicKey) -> list[Check]:
    """Hold a model against one ledger.

    Args:
        audited: the ledger after its own audit.
        origin: of the model.
        key: the aggregator's.
    """
    ledger = _Ledger(audited, origin, key)
    site = ledger.site
    if audited.verdict.finding is Finding.BROKEN:
        return [Check(f"{site}: ledger", holds=False, says=verdict_line(audited))]
    checks = [_identity(ledger), _witness(ledger), _answered(ledger)]
    if all(check.holds is not False for check in checks):
        checks += [_orders(ledger), _own_weights(ledger)]
    return checks


def unchecked_sites(origin: Provenance, ledgers: list[Audited]) -> list[Check]:
    """Say of which sites of the model no ledger was given."""
    given = {ledger.verdict.site for ledger in ledgers}
    sites = sorted({site for each in origin.rounds for site in each.sites} - given)
    return [
        Check(f"{site}: ledger", None, "not given (--ledger): its part was not looked at")
        for site in sites
    ]


def _identity(ledger: _Ledger) -> Check:
    """Require that the ledger is signed by the key that the model's roster names for this site."""
    name = f"{ledger.site}: ledger"
    known = {entry.site: entry.ledger_key for entry in ledger.origin.roster}
    fingerprint = ledger.audited.key.public.fingerprint
    if ledger.site not in known:
        return Check(name, holds=False, says="the model's roster does not name this site")
    if known[ledger.site] != fingerprint:
        says = f"signed by key {fingerprint[:_DIGITS]}, but the model's roster names another"
        return Check(name, holds=False, says=says)
    return Check(name, holds=True, says=f"{verdict_line(ledger.audited)}; key as in the roster")


def _witness(ledger: _Ledger) -> Check:
    """Require that the site knows the key that signed the model as its aggregator's."""
    name = f"{ledger.site}: aggregator's key"
    witness = ledger.audited.witness
    if witness is None:
        return Check(name, None, "the ledger came without a witness key")
    same = witness.public == ledger.key
    says = "the one that the site knows" if same else "another than the one that the site knows"
    return Check(name, same, says)


def _answered(ledger: _Ledger) -> Check:
    """Require an update of the site, under this plan, in every round whose sum names it."""
    name = f"{ledger.site}: rounds"
    updates = ledger.sent(_UPDATE)
    named = [each.round for each in ledger.origin.rounds if ledger.site in each.sites]
    lacking = [number for number in named if number not in updates]
    if lacking:
        says = f"the ledger has no {_UPDATE} of round {_list(lacking)} of {ledger.origin.run}"
        return Check(name, holds=False, says=says)
    other = [n for n in named if updates[n].plan_fingerprint != ledger.origin.plan]
    if other:
        says = f"round {_list(other)} was answered under another plan"
        return Check(name, holds=False, says=says)
    unused = sorted(set(updates) - set(named))
    rest = f"; round {_list(unused)} was answered and is not in the sum" if unused else ""
    return Check(name, holds=True, says=f"an update left in {_list(named) or 'none'}{rest}")


def _orders(ledger: _Ledger) -> Check:
    """Require that the signed orders that the site answered name the sums of the model."""
    name = f"{ledger.site}: sums"
    agreed, gone = [], []
    try:
        for number, record in sorted({**ledger.sent(_REPORT), **ledger.sent(_UPDATE)}.items()):
            header = _order_of(ledger, record)
            if header is None:
                gone.append(number)
                continue
            _require_same(ledger.origin, header, number)
            if number > 1:
                agreed.append(number - 1)
    except CairnError as error:
        return Check(name, holds=False, says=str(error))
    missing = f"; orders of round {_list(gone)} are no longer on file" if gone else ""
    if not agreed:
        return Check(name, None, f"no order on file names one{missing}")
    return Check(
        name, holds=True, says=f"signed orders name those of round {_list(agreed)}{missing}"
    )


def _order_of(ledger: _Ledger, record: LedgerRecord) -> OrderHeader | None:
    """Return the order that a record answers; None where it is no longer on file.

    Raises:
        VerificationError: other bytes lie in its place, or the aggregator did not sign them.
    """
    digest = record.order_sha256 or ""
    data = _archived(ledger, digest)
    if data is None:
        return None
    signature = bytes.fromhex(record.order_signature or "")
    ledger.key.verify(signature, SIGNATURE_CONTEXT + data)
    return decode_order(data).header


def _require_same(origin: Provenance, header: OrderHeader, number: int) -> None:
    """Compare an order with the model.

    Raises:
        VerificationError: another run, plan, roster or sum.
    """
    if (header.run, sha256_hex(header.plan.encode())) != (origin.run, origin.plan):
        raise _other(f"order of round {number}", "of the model's run and plan", "of another")
    if header.roster != origin.roster:
        raise _other(f"order of round {number}, roster", "the model's", "another")
    sums = {each.round: each.sum_sha256 for each in origin.rounds}
    if header.sum != sums.get(number - 1):
        raise _other(
            f"sum of round {number - 1}",
            f"{sums.get(number - 1, 'none')[:_DIGITS]}",
            f"{(header.sum or 'none')[:_DIGITS]} in a signed order",
        )


def _own_weights(ledger: _Ledger) -> Check:
    """Require that the site's last report names the weights, which it came to by itself."""
    name = f"{ledger.site}: weights"
    last = len(ledger.origin.rounds) + 1
    record = ledger.sent(_REPORT).get(last)
    if record is None:
        return Check(name, None, f"the site did not measure the model in round {last}")
    try:
        data = _archived(ledger, record.payload_sha256 or "")
        if data is None:
            return Check(name, None, "its last report is no longer on file")
        report = decode(data).record
        digest = report.weights_sha256 if isinstance(report, RoundReport) else None
        link = report.link if isinstance(report, RoundReport) else None
        if (digest, link) != (ledger.origin.weights, ledger.origin.link):
            raise _other(
                "weights that the site came to",
                ledger.origin.weights[:_DIGITS],
                (digest or "none")[:_DIGITS],
            )
    except CairnError as error:
        return Check(name, holds=False, says=str(error))
    return Check(name, holds=True, says=f"the site came to them by itself (record #{record.seq})")


def _archived(ledger: _Ledger, digest: str) -> bytes | None:
    return from_archive(Layout(ledger.audited.folder), digest)


def _other(field: str, expected: str, got: str) -> VerificationError:
    return VerificationError("does not agree", field=field, expected=expected, got=got)


def _list(numbers: list[int]) -> str:
    """``1 to 4, 6``: rounds as people write them."""
    return ", ".join(_runs(numbers))


def _runs(numbers: list[int]) -> Iterator[str]:
    start = before = None
    for number in [*numbers, None]:
        if before is not None and number != before + 1:
            yield f"{start}" if start == before else f"{start} to {before}"
            start = None
        start = number if start is None else start
        before = number

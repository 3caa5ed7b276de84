"""Ledgers as the door writes them, and as somebody would forge them.

A written one holds real releases, so that an auditor can open them; a forged one is
chained anew, and signed again with whatever key its forger has.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from common.canonical import canonical_json, sha256_hex
from common.crypto.identity import SigningKey
from common.ledger.log import Entry, Ledger
from common.ledger.merkle import Frontier, leaf_hash
from common.ledger.notes import Checkpoint, ledger_origin, sign_checkpoint
from common.ledger.parties import Parties
from common.ledger.records import ArrayRecord
from common.model import shared_shapes
from common.plan import FederationPlan, parse_plan
from common.policy import Policy
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, decode, describe_arrays, encode
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, RosterEntry, encode_order
from common.wire.records import ModelUpdate, RoundReport
from site_client.egress.policy import default_policy_text

NO_OP = parse_plan(
    {
        "name": "no-op",
        "kind": "no-op",
        "seed": 3,
        "task": {"landmarks": ["AC", "PC"], "roi": 9},
        "network": {"width": 4},
        "experience": {"rows": 3, "columns": 64},
        "rounds": {"training": 4, "quorum": 2, "deadline_s": 5.0},
    }
)
AGGREGATOR = SigningKey.from_seed(b"\2" * 32)
PEER = "ef" * 32


def policy_of(**changes: object) -> Policy:
    """The default policy, with sections changed: ``plans={"approval": "bounded"}``."""
    data = tomllib.loads(default_policy_text())
    for section, values in changes.items():
        data[section] = {**data.get(section, {}), **values}
    return Policy.model_validate(data)


def order_bytes(plan: FederationPlan, round_: int, phase: str = "train", **changes) -> bytes:
    """An order as sites archive it."""
    roster = tuple(
        RosterEntry(site=site, ledger_key=key, samples=12)
        for site, key in (("site-a", "aa" * 32), ("site-b", PEER))
    )
    words = {
        "run": "run-1",
        "round": round_,
        "phase": phase,
        "plan": plan.canonical().decode(),
        "deadline_s": 60,
        "roster": roster,
        "sum": "cd" * 32,
    }
    return encode_order(OrderHeader(**(words | changes)))


def report(plan: FederationPlan, round_: int, site: str = "site-a", **changes) -> bytes:
    """An envelope of a report."""
    words = {"plan_fingerprint": plan.fingerprint, "site": site, "run": "run-1", "round": round_}
    words |= {"code": ReplyCode.OK, "images": 5, "transitions": 100}
    return encode(Envelope(RoundReport(**(words | changes)), {}))


def update(plan: FederationPlan, round_: int, site: str = "site-a", **changes) -> bytes:
    """An envelope of an update that moves nothing."""
    words = {"plan_fingerprint": plan.fingerprint, "site": site, "run": "run-1", "round": round_}
    counts = {"images": 5, "samples": 5, "transitions": 100, "updates": 0}
    arrays = {name: np.zeros(shape, np.int32) for name, shape in shared_shapes(plan).items()}
    return encode(Envelope(ModelUpdate(**(words | counts | changes)), arrays))


class Written:
    """A ledger that is written as the door writes it, a minute later at every record."""

    def __init__(
        self,
        folder: Path,
        site: str = "site-a",
        seed: bytes = b"\1" * 32,
        policy: Policy | None = None,
        moment: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    ) -> None:
        self.folder, self.site = folder, site
        self.signing = SigningKey.from_seed(seed)
        self.policy = policy or policy_of(plans={"approval": "bounded"})
        self.moment = moment
        parties = Parties("north", "hub.example.org:9443", AGGREGATOR.public.fingerprint)
        origin = ledger_origin(site)
        self.open: Callable[[], Ledger] = lambda: Ledger.open(
            folder, origin, self.signing, self.clock, parties
        )
        self.ledger = self.open()

    def clock(self) -> datetime:
        self.moment += timedelta(minutes=1)
        return self.moment

    def release(
        self,
        payloads: Sequence[bytes],
        plan: FederationPlan = NO_OP,
        order: bytes | None = None,
        signer: SigningKey = AGGREGATOR,
        **changes,
    ) -> list[Entry]:
        """Archive and record an answer, as the door does, without its gate."""
        first = decode(payloads[0]).record
        order = order_bytes(plan, first.round, run=first.run) if order is None else order
        for text in (order, plan.canonical(), self.policy.canonical()):
            self.ledger.spool(text)
        return [self._append(payload, plan, order, signer, changes) for payload in payloads]

    def _append(self, payload, plan, order, signer, changes) -> Entry:
        envelope = decode(payload)
        record = envelope.record
        code = int(record.code) if isinstance(record, RoundReport) and record.code else None
        described = describe_arrays(envelope.arrays)
        fields = {
            "run": record.run,
            "round": record.round,
            "phase": "train",
            "record_type": record.record_type,
            "payload_sha256": self.ledger.spool(payload),
            "bytes": len(payload),
            "arrays": tuple(
                ArrayRecord(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256)
                for a in described
            ),
            "plan_fingerprint": plan.fingerprint,
            "policy_sha256": self.policy.sha256,
            "order_sha256": sha256_hex(order),
            "order_signature": signer.sign(SIGNATURE_CONTEXT + order).hex(),
            "code": code,
        }
        return self.ledger.append("SEND", **(fields | changes))


def chained(records: Iterable[dict]) -> bytes:
    """The log of these records, numbered and linked as a writer would have."""
    lines, before = [], None
    for seq, record in enumerate(records):
        words = {n: v for n, v in record.items() if n != "prev"} | {"seq": seq}
        line = canonical_json(words if before is None else words | {"prev": before.hex()})
        before = leaf_hash(line)
        lines.append(line + b"\n")
    return b"".join(lines)


def sign_again(folder: Path, log: bytes, key: SigningKey, origin: str = "site-a/ledger") -> bytes:
    """Put a forged log into a ledger's folder under a fresh checkpoint, which is returned."""
    frontier = Frontier()
    for line in log.split(b"\n")[:-1]:
        frontier.add(leaf_hash(line))
    note = sign_checkpoint(Checkpoint(origin, frontier.size, frontier.root()), key)
    (folder / "log.jsonl").write_bytes(log)
    (folder / "checkpoint").write_bytes(note)
    return note

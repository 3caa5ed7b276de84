"""What the first door of a site releases, for tests of what stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.journal import RequestJournal
from common.journal.entries import Network
from common.journal.identity import CourierIdentity
from common.journal.writer import Site
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.ledger.records import ArrayRecord, RecordFields
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, describe_arrays, encode
from common.wire.parcel import wrap
from common.wire.records import ModelUpdate, RoundReport
from common.wire.transport import ENVELOPE_SUFFIX, ORDER, PROOF_SUFFIX, SIGNATURE
from site_client.second_door import Asked, SecondDoor

APP = "a" * 64
PLAN, POLICY = sha256_hex(b"plan"), sha256_hex(b"policy")
# A key of P-384 that is the same in every run of the tests.
NODE_KEY = ec.derive_private_key(int.from_bytes(b"a node key of tests", "big"), ec.SECP384R1())


class Ticks:
    """One second later at every call."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def an_order(text: bytes = b"an order") -> bytes:
    """The parcel of an order."""
    return wrap({ORDER: text, SIGNATURE: b"s" * 64})


def asked_by(text: bytes = b"an order") -> Asked:
    """What a reply to it must answer."""
    return Asked(sha256_hex(text), (b"s" * 64).hex())


class FirstDoor:
    """A site's ledger, and replies that it has recorded."""

    def __init__(self, folder: Path, site: str = "site-a") -> None:
        self.site = site
        self.key = SigningKey.from_seed(b"\1" * 32)
        self.ledger = Ledger.open(folder, ledger_origin(site), self.key, Ticks())

    def second(self, roots: dict[int, bytes] | None = None) -> SecondDoor:
        """The courier's own door, which knows the public half."""
        return SecondDoor(self.site, "f", self.key.public, APP, dict(roots or {}))

    def parts(
        self, text: bytes = b"an order", round_: int = 1, since: int = 0, **fields: object
    ) -> dict[str, bytes]:
        """Envelopes and proofs of a round of training; ``fields`` change their records."""
        common = {"plan_fingerprint": PLAN, "site": self.site, "run": "run-1", "round": round_}
        update = ModelUpdate(images=3, samples=3, transitions=9, updates=1, **common)
        report = RoundReport(code=ReplyCode.OK, images=3, **common)
        weights = {"trunk/0/weight": np.arange(6, dtype=np.int32).reshape(2, 3)}
        payloads = {}
        for record, arrays in ((update, weights), (report, {})):
            payloads[record.record_type] = (encode(Envelope(record, arrays)), arrays)
        seqs = {
            kind: self._record(kind, payload, arrays, text, round_, fields)
            for kind, (payload, arrays) in payloads.items()
        }
        found: dict[str, bytes] = {}
        for kind, (payload, _) in payloads.items():
            found[kind + ENVELOPE_SUFFIX] = payload
            found[kind + PROOF_SUFFIX] = self.ledger.proof(seqs[kind], since).to_bytes()
        return found

    def reply(self, text: bytes = b"an order", round_: int = 1, **fields: object) -> bytes:
        """A released reply to an order."""
        return wrap(self.parts(text, round_, **fields))

    def _record(
        self,
        kind: str,
        payload: bytes,
        arrays: Mapping[str, np.ndarray],
        text: bytes,
        round_: int,
        fields: Mapping[str, object],
    ) -> int:
        words = RecordFields(
            run="run-1",
            round=round_,
            record_type=kind,
            payload_sha256=self.ledger.spool(payload),
            bytes=len(payload),
            arrays=tuple(
                ArrayRecord(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256)
                for a in describe_arrays(arrays)
            ),
            plan_fingerprint=PLAN,
            policy_sha256=POLICY,
            app_sha256=APP,
            phase="train",
            order_sha256=sha256_hex(text),
            order_signature=(b"s" * 64).hex(),
        )
        return self.ledger.append("SEND", **(words | fields)).record.seq


def a_journal(
    path: Path, site: str = "site-a", network: Callable[[], Network | None] = lambda: None
) -> RequestJournal:
    """A courier's journal."""
    return RequestJournal(path, CourierIdentity.of(NODE_KEY), Site("f", site), Ticks(), network)

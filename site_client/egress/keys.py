"""The federation key's own way through the door: sealed to other sites, or not at all.

The same order as for every release: check, archive, record, hand over. What may
leave is 128 bytes per receiver, half of it a signature that this site itself has
made for that receiver; the policy's ``[keys]`` and the people of this site, who
confirm others, say who may be one. To audit, read
``check_keys`` and stop: what it calls is in ``common.wire.sealed_keys``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.crypto.sealing import check_box
from common.errors import CairnError, RefusedError
from common.ledger.log import Ledger
from common.ledger.records import ArrayRecord, RefusalDetail
from common.policy import Policy
from common.wire.codes import ReplyCode
from common.wire.parcel import wrap
from common.wire.sealed_keys import SealedParcel, decode_sealed
from common.wire.transport import ENVELOPE_SUFFIX, PROOF_SUFFIX
from site_client.egress.outbox import put_keys
from site_client.spool import Spool

LOG = logging.getLogger("cairn.egress")


@dataclass(frozen=True)
class KeyContext:
    """Everything that sealed keys are measured against; none of it comes from them.

    Attributes:
        federation, site: ours.
        ledger_key: ours, that must have signed.
        generation, key_id: of the key that may leave sealed.
        receivers: fingerprint of the ledger key of every site whose own signature
            over its keys was verified, by site; we ourselves may be one.
        confirmed: fingerprint of the ledger key of every site that a person of this one
            has confirmed, by site.
        policy: the site's own.
    """

    federation: str
    site: str
    ledger_key: PublicKey
    generation: int
    key_id: str
    receivers: Mapping[str, str]
    confirmed: Mapping[str, str]
    policy: Policy


def check_keys(data: bytes, context: KeyContext) -> SealedParcel:
    """Return what was decoded if and only if it may leave.

    Raises:
        RefusedError: names what may not leave as it is.
        VerificationError: a box without this site's signature for its receiver.
    """
    parcel = decode_sealed(data)
    header = parcel.header
    _require(
        (header.federation, header.site) == (context.federation, context.site), "site", "our own"
    )
    _require(
        (header.generation, header.key_id) == (context.generation, context.key_id),
        "key_id",
        "our key's",
    )
    for box in parcel.boxes:
        label = box.label
        is_receiver = context.receivers.get(label.for_site) == label.for_ledger_key
        _require(is_receiver, "receiver", "a site whose keys were verified")
        sharing = context.policy.sharing
        allowed = label.for_site == context.site or sharing.allows(
            label.for_site, label.for_ledger_key, context.confirmed
        )
        _require(
            allowed and sharing.share != "never",
            "receiver",
            "one that policy.toml or a person here allows",
        )
        check_box(box.box, box.signature, label, context.ledger_key)
    return parcel


class KeyDoor:
    """Check, record and hand over sealed keys; record what came and did not hold.

    Args:
        ledger: of this site, open.
        spool: where the courier looks.
        app_sha256: digest of the pinned Flower app, for the records.
    """

    def __init__(self, ledger: Ledger, spool: Spool, app_sha256: str | None = None) -> None:
        self._ledger = ledger
        self._spool = spool
        self._app_sha256 = app_sha256

    def release(self, data: bytes, context: KeyContext) -> SealedParcel:
        """Let sealed keys out.

        Raises:
            RefusedError, VerificationError: they may not leave; the refusal is recorded.
            StorageError: the ledger could not record; nothing was handed over.
        """
        try:
            parcel = check_keys(data, context)
        except CairnError as error:
            self.refuse(error, context.policy, ReplyCode.REFUSED_AT_DOOR)
            raise
        digest = sha256_hex(data)
        record = self._ledger.find(digest)
        if record is None:
            self._ledger.spool(data)
            self._ledger.spool(context.policy.canonical())
            record = self._ledger.append(
                "SEND",
                record_type=parcel.header.record_type,
                payload_sha256=digest,
                bytes=len(data),
                arrays=tuple(
                    ArrayRecord(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256)
                    for a in parcel.arrays
                ),
                policy_sha256=context.policy.sha256,
                app_sha256=self._app_sha256,
                key_id=context.key_id,
                generation=context.generation,
            ).record
        proof = self._ledger.proof(record.seq, 0).to_bytes()
        kind = parcel.header.record_type
        parts = {f"{kind}{ENVELOPE_SUFFIX}": data, f"{kind}{PROOF_SUFFIX}": proof}
        put_keys(self._spool, digest, wrap(parts))
        return parcel

    def refuse(
        self, error: CairnError, policy: Policy, code: ReplyCode = ReplyCode.UNTRUSTED_KEY
    ) -> None:
        """Record what was refused; nothing leaves.

        Raises:
            StorageError: the ledger could not record.
        """
        LOG.error("federation key: %s", error)
        self._ledger.spool(policy.canonical())
        self._ledger.append(
            "REFUSE",
            code=int(code),
            detail=RefusalDetail.of(error),
            policy_sha256=policy.sha256,
            app_sha256=self._app_sha256,
        )


def _require(holds: bool, field: str, expected: str) -> None:
    if not holds:
        raise RefusedError(
            "refused at the door; nothing was sent", field=field, expected=expected, got="another"
        )

"""What lying parties make: orders that the conductor never wrote, tags that do not fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.plan import FederationPlan
from common.schedule import Phase, schedule
from common.wire.envelope import Envelope
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, decode_order, encode_order
from common.wire.parcel import unwrap, wrap
from common.wire.transport import ORDER, SIGNATURE, sum_part
from site_client.worker import answering
from tests.simulation.faults import Fault


def forge(parcel: bytes, fault: Fault, witness: SigningKey, longer: FederationPlan) -> bytes | None:
    """What a lying aggregator, which holds the signing key, sends instead of an order.

    Args:
        parcel: with the honest order.
        fault: the lie.
        witness: the aggregator's key.
        longer: a plan of one round more.
    """
    if fault.kind == "garbage ordered":
        return random.Random(fault.at).randbytes(fault.at * 3)
    if fault.kind == "order altered":
        place = fault.at * 7919 % len(parcel)
        return parcel[:place] + bytes([parcel[place] ^ 1]) + parcel[place + 1 :]
    parts = unwrap(parcel)
    order = decode_order(parts[ORDER])
    if order.header.round == 0:
        return None  # nothing is known of the run yet: whatever it says is the run
    changed = _changed(order.header, parts, schedule(order.plan), fault, longer)
    if changed is None:
        return None
    body = encode_order(changed)
    return wrap(parts | {ORDER: body, SIGNATURE: witness.sign(SIGNATURE_CONTEXT + body)})


def _changed(
    header: OrderHeader,
    parts: dict[str, bytes],
    phases: Sequence[Phase],
    fault: Fault,
    longer: FederationPlan,
) -> OrderHeader | None:
    """Other words; sums are changed in the parts."""
    match fault.kind:
        case "sum altered" if sum_part(header.round - 1) in parts:
            name = sum_part(header.round - 1)
            data = parts[name]
            parts[name] = data[:-1] + bytes([data[-1] ^ 1])
            return header.model_copy(update={"sum": sha256_hex(parts[name])})
        case "longer plan":
            return header.model_copy(update={"plan": longer.canonical().decode()})
        case "round skipped" if header.round + 1 < len(phases):
            later = header.round + 1
            return header.model_copy(update={"round": later, "phase": phases[later]})
        case "another roster":
            out = fault.at % len(header.roster)
            rest = tuple(e for n, e in enumerate(header.roster) if n != out)
            return header.model_copy(update={"roster": rest})
        case "question changed":
            return header.model_copy(update={"deadline_s": header.deadline_s + 1})
    return None


@contextmanager
def lying_tags(lies: Callable[[str], bool]) -> Iterator[None]:
    """Have a site bend the tags of its answers whenever ``lies`` says so of it."""
    honest = answering.tagged

    def tagged(envelopes, key, link):
        return [_bent(e) if lies(e.record.site) else e for e in honest(envelopes, key, link)]

    with mock.patch.object(answering, "tagged", tagged):
        yield


def _bent(envelope: Envelope) -> Envelope:
    tag = getattr(envelope.record, "tag", None)
    if tag is None:
        return envelope
    bent = f"{int(tag, 16) ^ 1:016x}"
    return Envelope(envelope.record.model_copy(update={"tag": bent}), envelope.arrays)

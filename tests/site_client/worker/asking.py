"""Asking one site for the rounds of a run, and what must be so when it refuses."""

from __future__ import annotations

import threading

import numpy as np

from common.canonical import sha256_hex
from common.ledger.layout import Layout
from common.ledger.records import LedgerRecord, parse_record
from common.model import initial_weights, weights_digest
from common.plan import FederationPlan
from common.sums.addition import decode_sum
from common.sums.averaging import moved, with_momentum
from common.sums.fixed_point import UNIT
from common.wire import parcel
from common.wire.orders import decode_order
from site_client.worker.chain_file import FILE
from site_client.worker.loop import Worker
from tests.aggregated import OTHERS, Past

RUN = "run-1"
UPDATE, SKETCH = "ModelUpdate", "SketchTable"


def ledger_of(site) -> list[LedgerRecord]:
    """Every record of a site's ledger, as it lies on the disk."""
    log = Layout(site.folder.ledger).log
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return [parse_record(line) for line in lines]


def refusals(site) -> list[LedgerRecord]:
    """The records of what was refused, oldest first."""
    return [record for record in ledger_of(site) if record.event == "REFUSE"]


def ask(site, order):
    """What the site says to an order, by a worker that starts for it."""
    digest = site.put(order)
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
    return site.reply(digest)


def report(reply):
    return reply["RoundReport"].record


def told(site, round_, reply) -> bytes:
    """The honest sum of a round: of the site and the others."""
    past = site.past()
    others = {name: past.training_records(name, round_) for name in OTHERS}
    return past.add({"north": reply.values(), **others})


def chain_of(site, run=RUN) -> bytes | None:
    path = site.folder.worker / "state" / run / FILE
    return path.read_bytes() if path.exists() else None


def refused(site, order, code, worked, field=None):
    """The order gets this number and one record; nothing was worked on, nothing is believed."""
    worked.clear()
    before, chain = len(ledger_of(site)), chain_of(site)
    reply = ask(site, order)
    assert set(reply) == {"RoundReport"}
    said = report(reply)
    assert said.code is code
    assert (said.images, said.weights_sha256, said.link) == (0, None, None)
    assert worked == []
    body = sha256_hex(parcel.unwrap(order)["order"])
    refusal, *sent = (r for r in ledger_of(site)[before:] if r.event != "GENESIS")
    # The same number in answer to the same order is recorded as sent once.
    sent = sent or [r for r in ledger_of(site) if (r.event, r.order_sha256) == ("SEND", body)]
    assert (refusal.event, [r.record_type for r in sent]) == ("REFUSE", ["RoundReport"])
    header = decode_order(parcel.unwrap(order)["order"]).header
    for record in (refusal, *sent):
        assert (record.run, record.order_sha256) == (header.run, body)
        assert (record.round, record.phase, record.code) == (header.round, header.phase, code)
    if field is not None:
        assert refusal.detail.field == field
    assert chain_of(site) == chain
    return refusal


def after_round_1(site):
    reply = ask(site, site.order(1, "train"))
    return site, reply, told(site, 1, reply)


def elsewhere(site, run=RUN, key=None, **changes) -> Past:
    return Past(site.plan, run, site.roster, key or site.key, **changes)


def came_to(plan: FederationPlan, sums: list[bytes]) -> str:
    """Digest of the weights after these sums, computed apart from the site's chain."""
    weights, velocity, momentum = initial_weights(plan), {}, plan.rounds.server_momentum
    for data in sums:
        summand = decode_sum(data).groups[UPDATE].summand
        samples = summand.counts["samples"]
        mean = {n: a.astype(np.float64) / (UNIT * samples) for n, a in summand.arrays.items()}
        if momentum:
            mean, velocity = with_momentum(mean, velocity, momentum)
        weights = moved(weights, mean)
    return weights_digest(weights)

"""Readers of what goes between the aggregator and a relay, both of which may lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aggregator.intake.partial import PartialRequest, check_partial
from aggregator.intake.reply import Sender, open_head
from aggregator.relays.relay import Relay
from aggregator.rounds.transport import Arrival
from common.canonical import sha256_hex
from common.model import shared_shapes
from common.sums.addition import add_records, encode_sum
from common.wire.expected import Expected, RecordFloors
from common.wire.parcel import unwrap, wrap
from common.wire.relayed import (
    HEAD_PREFIX,
    HEADS,
    NOTE,
    SIGNATURE_CONTEXT,
    SUM,
    AddNote,
    Answered,
    GatherNote,
    Heads,
    Numbered,
    RelayedSite,
    SummedRecord,
    TurnedAway,
    open_note,
    read_heads,
    read_partial,
    said_bytes,
    sign_note,
)
from tests.conftest import FEDERATION_KEY
from tests.fuzz import corpus, mutations
from tests.fuzz.decoder import Decoder, folder

RELAY = "relay-1"
KEPT = ("ModelUpdate", "SketchTable")


class _Site:
    """A way to one site that answers at once with what a ledger wrote."""

    def __init__(self) -> None:
        self._asked = False

    def nodes(self) -> Mapping[int, str]:
        return {1: corpus.NAME}

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        del deadline_s
        self._asked = bool(dict(parcels))

    def receive(self) -> Sequence[Arrival]:
        asked, self._asked = self._asked, False
        return [Arrival(1, corpus.written().reply)] if asked else []


def _relay() -> Relay:
    return Relay(RELAY, corpus.WITNESS.public, folder() / RELAY, _Site(), wait=lambda _: None)


def head() -> bytes:
    """Of the reply that the ledger wrote, what a relay passes on."""
    parts = unwrap(corpus.written().reply)
    return wrap({name: data for name, data in parts.items() if name.startswith("RoundReport")})


def _gather() -> GatherNote:
    row = RelayedSite(site=corpus.NAME, ledger_key=corpus.SITE.public.text, since=1)
    order = corpus.orders()["train"]
    return GatherNote(
        relay=RELAY,
        run=corpus.RUN,
        round=1,
        order=sha256_hex(order),
        deadline_s=60,
        key_id=FEDERATION_KEY.key_id,
        codec="0" * 64,
        sites=(row,),
    )


def _add() -> AddNote:
    answers = {corpus.NAME: {kind: corpus.digest_of(kind) for kind in KEPT}}
    return AddNote(relay=RELAY, run=corpus.RUN, round=1, answers=answers)


def _errand() -> bytes:
    order = unwrap(corpus.signed(corpus.orders()["train"]))
    return wrap({NOTE: sign_note(_gather(), corpus.WITNESS), **order})


def _heads() -> bytes:
    kept = {
        kind: SummedRecord(bytes=len(corpus.encoded()[kind]), sha256=corpus.digest_of(kind))
        for kind in KEPT
    }
    said = (
        Answered(site=corpus.NAME, ms=1500, norm=1234.5, kept=kept),
        Numbered(site="south", ms=20, code=1),
        TurnedAway(site="west", stale=True, reason="the proof is older", bytes=99),
    )
    words = Heads(relay=RELAY, run=corpus.RUN, round=1, sites=said)
    return wrap({HEADS: said_bytes(words), HEAD_PREFIX + corpus.NAME: head()})


def _expected() -> Expected:
    plan = corpus.plan()
    return Expected(
        site=corpus.NAME,
        run=corpus.RUN,
        round=1,
        phase="train",
        plan=plan,
        shapes=shared_shapes(plan),
        floors=RecordFloors.of(plan),
        key_id=FEDERATION_KEY.key_id,
        codec="0" * 64,
    )


def _sum() -> bytes:
    kept = [corpus.envelopes()[kind] for kind in KEPT]
    return encode_sum(add_records(corpus.RUN, 1, {corpus.NAME: kept}))


def _partial(data: bytes) -> object:
    caps, lengths = {corpus.NAME: 1000}, {corpus.NAME: 1e9}
    wanted = PartialRequest(corpus.RUN, 1, "train", corpus.plan(), caps, lengths)
    return check_partial(read_partial(data), wanted)


def _signed(data: bytes) -> object:
    """An aggregator that lies: signed, and bent."""
    signature = corpus.WITNESS.sign(SIGNATURE_CONTEXT + data)
    return open_note(signature + data, corpus.WITNESS.public)


def _done(data: bytes) -> object:
    """Whatever the errand, a relay answers in words that the aggregator can read."""
    return read_heads(_relay().answer(data))


def _done_signed(data: bytes) -> object:
    """A signed errand to add what may lie nowhere."""
    signature = corpus.WITNESS.sign(SIGNATURE_CONTEXT + data)
    return read_partial(_relay().answer(wrap({NOTE: signature + data})))


def of_relays() -> list[Decoder]:
    """Errands down; heads and sums up."""
    sender = Sender(corpus.SITE.public, None)
    notes = (said_bytes(_gather()), said_bytes(_add()))
    _relay().answer(_errand())  # what the second errand adds lies in the relay's archive
    return [
        Decoder(
            "errand's note",
            tuple(sign_note(note, corpus.WITNESS) for note in (_gather(), _add())),
            mutations.raw,
            lambda data: open_note(data, corpus.WITNESS.public),
            ("common.wire.relayed.open_note",),
        ),
        Decoder("errand's note, signed", notes, mutations.as_json, _signed, ()),
        Decoder("errand", (_errand(),), mutations.as_parcel, _done, ()),
        Decoder("errand to add", notes[1:], mutations.as_json, _done_signed, ()),
        Decoder(
            "relay's heads",
            (_heads(),),
            mutations.as_parcel,
            read_heads,
            ("common.wire.relayed.read_heads",),
        ),
        Decoder(
            "relay's head of a reply",
            (head(),),
            mutations.as_parcel,
            lambda data: open_head(data, sender, _expected()),
            ("aggregator.intake.reply.open_head",),
        ),
        Decoder(
            "relay's sum",
            (wrap({SUM: _sum()}),),
            mutations.as_parcel,
            _partial,
            ("common.wire.relayed.read_partial",),
        ),
    ]

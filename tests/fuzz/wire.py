"""Readers of what crosses between a site and the aggregator: orders, replies, sums."""

from __future__ import annotations

from functools import cache

from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import FlowerError

from aggregator.desk.enrolment import body_of
from aggregator.intake.reply import Sender, open_reply
from aggregator.rounds.several_pieces import read_pieces
from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.desk import desk_pb2 as pb
from common.desk.failures import rebuilt
from common.ledger.rotation import open_rotation, rotate
from common.model import shared_shapes
from common.policy import Policy, check_plan, read_policy
from common.sums.addition import add_records, decode_sum, encode_sum, verify_sum
from common.wire.carried import carried_parcel
from common.wire.envelope import decode
from common.wire.expected import Expected, RecordFloors
from common.wire.objects import read_content
from common.wire.orders import check_order, decode_order
from common.wire.parcel import unwrap, views
from common.wire.records import GroupCounts, parse_record
from common.wire.rules import check_record
from common.wire.sealed_keys import decode_sealed
from common.wire.several import PULL_PIECES, PUSH_PIECES, join
from common.wire.turn import SIGNATURE_CONTEXT, TurnNote, open_turn, sign_turn
from site_client.egress.policy import default_policy_text
from site_client.spool import Spool
from site_client.worker.failures import BadOrderError
from site_client.worker.order import open_order
from tests.conftest import FEDERATION_KEY
from tests.fuzz import corpus, mutations
from tests.fuzz.decoder import Decoder, folder


def _expected(kind: str) -> Expected:
    phases = {"PixelStatistics": "survey", "PixelSketches": "sketch", "HeavyHitters": "recover"}
    plan = corpus.pixel_plan() if kind in phases else corpus.plan()
    return Expected(
        site=corpus.NAME,
        run=corpus.RUN,
        round=1,
        phase=phases.get(kind, "train"),
        plan=plan,
        shapes=shared_shapes(plan) if plan.kind == "no-op" else {},
        floors=RecordFloors.of(plan),
        key_id=FEDERATION_KEY.key_id,
        codec="0" * 64,
    )


@cache
def _expectations() -> dict[str, Expected]:
    return {kind: _expected(kind) for kind in corpus.envelopes()}


def _envelope(data: bytes) -> object:
    envelope = decode(data)
    if not isinstance(envelope.record, GroupCounts):  # of a plan that has no other record
        check_record(envelope, _expectations()[envelope.record.record_type])
    return envelope


def _several(kind: type[PullObjectRequest | PushObjectRequest]) -> bytes:
    """A call for several pieces, as a courier makes it."""
    node = Node(node_id=7)
    return join(
        [kind(node=node, run_id=3, object_id=f"{n:064x}").SerializeToString() for n in range(3)]
    )


def _pieces(data: bytes) -> object:
    return [read_pieces(call, data) for call in (PULL_PIECES, PUSH_PIECES)]


def _order(data: bytes) -> object:
    order = decode_order(data)
    check_order(order)
    check_plan(allowing_policy(), order.plan)
    return order


def _signed_order(data: bytes) -> object:
    """An aggregator that lies: signed, and bent."""
    opened = open_order(corpus.signed(data), corpus.WITNESS.public)
    check_order(opened.order)
    return opened


@cache
def allowing_policy() -> Policy:
    allowing = default_policy_text().replace('"no-op"]', '"no-op", "pixels", "embed"]')
    path = folder() / "allowing.toml"
    path.write_text(allowing)
    return read_policy(path)


def _sum(data: bytes) -> object:
    total = decode_sum(data)
    verify_sum(total, FEDERATION_KEY, corpus.first_link())
    return total


def _added(data: bytes) -> object:
    """A site that lies well: its record is added to an honest one and encoded again."""
    bent, honest = decode(data), corpus.envelopes()["ModelUpdate"]
    check_record(bent, _expectations()["ModelUpdate"])
    if bent.record.record_type != "ModelUpdate":
        return None
    return encode_sum(add_records(corpus.RUN, 1, {"north": [bent], "south": [honest]}))


def _objects(data: bytes) -> object:
    pieces = unwrap(data)
    root = pieces.pop("root", b"").decode("ascii", "replace")
    return read_content(root, {sha256_hex(piece): piece for piece in pieces.values()})


def _carried(data: bytes) -> object:
    return carried_parcel("uint8", [8], "numpy.ndarray", data)


def _signed_body(data: bytes) -> object:
    request = pb.SignedRequest()
    for kind in (pb.EnrolStatusBody, pb.PutSealedKeysBody, pb.GetSealedKeyBody, pb.RenewBody):
        request.body = data
        body_of(kind, request)
    return request


def _spooled(data: bytes) -> object:
    """Whatever lies in the inbox under whatever name."""
    spool = Spool(folder() / "spool")
    spool.prepare()
    name = sha256_hex(data)
    (spool.inbox / f"{name}.order").write_bytes(data)
    try:
        opened = open_order(spool.read_order(name), corpus.WITNESS.public)
    finally:
        spool.finish_order(name)
    return opened


def of_the_wire() -> list[Decoder]:
    envelope = "common.wire.envelope.decode", "common.wire.records.parse_record"
    orders = tuple(corpus.orders().values())
    reply, objects = corpus.written().reply, tuple(corpus.objects().values())
    sender = Sender(corpus.SITE.public, None)
    bad = (BadOrderError,)
    return [
        Decoder(
            "envelope",
            tuple(corpus.encoded().values()),
            mutations.as_safetensors,
            _envelope,
            envelope,
        ),
        Decoder(
            "record header",
            tuple(
                canonical_json(e.record.model_dump(mode="json", exclude_none=True))
                for e in corpus.envelopes().values()
            ),
            mutations.as_json,
            lambda data: parse_record(parse_canonical_json(data, "header")),
            ("common.wire.records.parse_record", "common.canonical.parse_canonical_json"),
        ),
        Decoder(
            "several pieces",
            (_several(PullObjectRequest), _several(PushObjectRequest)),
            mutations.raw,
            _pieces,
            ("aggregator.rounds.several_pieces.read_pieces",),
            (FlowerError,),
        ),
        Decoder("order", orders, mutations.as_json, _order, ("common.wire.orders.decode_order",)),
        Decoder(
            "order, signed",
            orders,
            mutations.as_json,
            _signed_order,
            ("site_client.worker.order.open_order",),
            bad,
        ),
        Decoder(
            "order's parcel",
            tuple(map(corpus.signed, orders)),
            mutations.as_parcel,
            _spooled,
            ("site_client.worker.order.open_order", "site_client.spool.Spool.read_order"),
            bad,
        ),
        Decoder(
            "parcel",
            (reply, corpus.signed(orders[0])),
            mutations.raw,
            unwrap,
            ("common.wire.parcel.unwrap", "common.wire.parcel.views"),
        ),
        Decoder("parcel's parts", (reply,), mutations.as_parcel, views, ()),
        Decoder(
            "reply",
            (reply,),
            mutations.as_parcel,
            lambda data: open_reply(data, sender, _expectations()["ModelUpdate"]),
            ("aggregator.intake.reply.open_reply",),
        ),
        Decoder(
            "record, added",
            (corpus.encoded()["ModelUpdate"],),
            mutations.as_safetensors,
            _added,
            (),
        ),
        Decoder(
            "sum",
            (corpus.sums(),),
            mutations.as_safetensors,
            _sum,
            ("common.sums.addition.decode_sum",),
        ),
        Decoder(
            "Flower's objects",
            objects,
            mutations.as_objects,
            _objects,
            ("common.wire.objects.read_content",),
        ),
        Decoder(
            "Flower's array",
            (
                b"\x93NUMPY\x01\0v\0"
                + b"{'descr': '|u1', 'fortran_order': False, 'shape': (8,), }".ljust(117)
                + b"\n"
                + b"a parcel",
            ),
            mutations.raw,
            _carried,
            ("common.wire.carried.carried_parcel",),
        ),
        Decoder(
            "turn",
            (sign_turn(TurnNote(run=corpus.RUN, turn=3), corpus.WITNESS),),
            mutations.raw,
            lambda data: open_turn(data, corpus.RUN, corpus.WITNESS.public),
            ("common.wire.turn.open_turn",),
        ),
        Decoder(
            "turn, signed",
            (b'{"message":"Turn","run":"run-1","stop":false,"turn":3,"v":1}',),
            mutations.as_json,
            lambda data: open_turn(
                corpus.WITNESS.sign(SIGNATURE_CONTEXT + data) + data,
                corpus.RUN,
                corpus.WITNESS.public,
            ),
            (),
        ),
        Decoder(
            "rotation",
            (rotate(corpus.WITNESS, corpus.SITE, corpus.NOW),),
            mutations.raw,
            open_rotation,
            ("common.ledger.rotation.open_rotation",),
        ),
        Decoder(
            "sealed keys",
            (corpus.sealed()[0],),
            mutations.as_safetensors,
            decode_sealed,
            ("common.wire.sealed_keys.decode_sealed",),
        ),
        Decoder(
            "request's body",
            (pb.PutSealedKeysBody(keys=[pb.SealedKey(for_site="a")]).SerializeToString(),),
            mutations.raw,
            _signed_body,
            (),
        ),
        Decoder(
            "desk's error",
            (b'{"error":"RefusedError","problem":"no","field":"x","exit_code":3}',),
            mutations.as_json,
            lambda data: str(rebuilt(data, "desk:1")),
            (),
        ),
    ]

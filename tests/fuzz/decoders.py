"""Every reader of what another party wrote, with what it starts from and how that is bent.

``covers`` names the functions of the product that a reader here goes through. A function
whose name says that it reads, and that stands neither here nor in ``OWN``, fails the test
that looks for such functions: whoever adds a decoder adds it here.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aggregator.admin import credentials, invites
from aggregator.admin import sealed as kept_sealed
from aggregator.admin.enrol import check_keys
from aggregator.admin.folder import FederationFolder
from aggregator.desk.enrolment import body_of
from aggregator.desk.local import parse_plan_toml
from aggregator.intake.reply import Sender, open_reply
from aggregator.rounds.events import RunStarted, SiteRejected, read_events
from aggregator.rounds.store import RunStore
from aggregator.rounds.training import read_start
from common.arrivals.files import read_bounded
from common.arrivals.texts import json_of, toml_of
from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.checkpoint import loaded_weights, read_folder
from common.crypto import clients
from common.crypto.certificates import (
    certificate_fingerprint,
    days_left,
    parse_certificate,
    parse_node_public_key,
)
from common.crypto.exchange import SealingKey
from common.crypto.identity import PublicKey, read_public_key
from common.crypto.sealing import Label, check_box, open_box
from common.desk import desk_pb2 as pb
from common.desk.failures import rebuilt
from common.enrolment import parse_request, parse_time, read_invite, read_request
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts, read_key_counts
from common.keys.pixel_agreement import read_codec, read_component_codec, require_planned
from common.ledger.notes import ledger_key, open_note, parse_note, witness_key
from common.ledger.proof import Proof, verify_proof
from common.ledger.records import parse_record as parse_ledger_record
from common.model import shared_shapes
from common.plan import parse_plan, read_plan
from common.released.card import decode_card
from common.released.checking import check_folder
from common.released.folder import ModelFolder
from common.released.provenance import decode_provenance
from common.screen import read_progress
from common.settings.reading import parse_settings
from common.sketching.count_sketch import CountSketch
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
from site_client.courier.courier import remembered
from site_client.decisions.making import Decision
from site_client.egress.policy import (
    Policy,
    check_plan,
    default_policy_text,
    parse_policy,
    read_policy,
)
from site_client.heldout.errors import read_errors
from site_client.heldout.memory import read_memory
from site_client.imaging.boxes import read_box_table
from site_client.imaging.landmark_tables import read_landmark_table, read_voxel_lines
from site_client.imaging.landmarks import read_landmarks
from site_client.imaging.listfiles import read_list
from site_client.keys.news import KeyNews
from site_client.keys.state import read_key_state
from site_client.keys.trust import Me, verify_peers
from site_client.plans.waiting import kept_plans, plan_of
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.trouble import read_trouble
from site_client.worker.failures import BadOrderError
from site_client.worker.order import open_order
from site_client.worker.site_cases import read_data_settings
from tests.conftest import FEDERATION_KEY
from tests.fuzz import corpus, mutations

Reader = Callable[[bytes], object]


@dataclass(frozen=True)
class Decoder:
    """One reader.

    Attributes:
        name: for people.
        seeds: valid messages.
        mutate: bends one.
        read: raises nothing that is not declared, whatever it is given.
        covers: functions of the product that it goes through, by module and name.
        declared: errors beside ``CairnError`` that its caller expects.
    """

    name: str
    seeds: tuple[bytes, ...]
    mutate: mutations.Mutate
    read: Reader
    covers: tuple[str, ...]
    declared: tuple[type[Exception], ...] = ()


# In memory where there is any; what is in it goes with the process.
_KEPT = tempfile.TemporaryDirectory(
    prefix="cairn-fuzz-",
    dir="/dev/shm" if Path("/dev/shm").is_dir() else None,
)


def _folder() -> Path:
    return Path(_KEPT.name)


def filed(read: Callable[[Path], object], name: str) -> Reader:
    """Read from a file what was given as bytes."""

    def reader(data: bytes) -> object:
        path = _folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return reader


def text(read: Callable[[str], object]) -> Reader:
    """Read as text, as much as the bytes are."""
    return lambda data: read(data.decode("utf-8", "replace"))


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


def _order(data: bytes) -> object:
    order = decode_order(data)
    check_order(order)
    check_plan(_policy(), order.plan)
    return order


def _signed_order(data: bytes) -> object:
    """An aggregator that lies: signed, and bent."""
    opened = open_order(corpus.signed(data), corpus.WITNESS.public)
    check_order(opened.order)
    return opened


@cache
def _policy() -> Policy:
    allowing = default_policy_text().replace('"no-op"]', '"no-op", "pixels", "embed"]')
    path = _folder() / "allowing.toml"
    path.write_text(allowing)
    return read_policy(path)


def _proof(data: bytes) -> object:
    return verify_proof(
        Proof.from_bytes(data),
        corpus.digest_of("ModelUpdate"),
        f"{corpus.NAME}/ledger",
        corpus.SITE.public,
        None,
    )


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


def _note(data: bytes) -> object:
    parse_note(data)
    keys = [ledger_key(f"{corpus.NAME}/ledger", corpus.SITE.public)]
    return open_note(data, [*keys, witness_key(corpus.WITNESS.public)])


def _objects(data: bytes) -> object:
    pieces = unwrap(data)
    root = pieces.pop("root", b"").decode("ascii", "replace")
    return read_content(root, {sha256_hex(piece): piece for piece in pieces.values()})


def _carried(data: bytes) -> object:
    return carried_parcel("uint8", [8], "numpy.ndarray", data)


def _certificate(data: bytes) -> object:
    certificate = parse_certificate(data)
    authority = parse_certificate(corpus.certificates()["authority"])
    certificate_fingerprint(certificate)
    days_left(certificate)
    clients.client_of(certificate)
    return clients.check_client_certificate(
        certificate,
        authority,
        clients.requested_key(corpus.certificates()["csr"]),
        clients.ClientName("site", corpus.NAME),
    )


def _request(data: bytes) -> object:
    request = parse_request(data)
    request.verify()
    check_keys(request)
    return request.digest


def _news(data: bytes) -> object:
    news = KeyNews.read(data)
    me = Me("fuzz", "south", corpus.WITNESS.public, corpus.OPENING.public)
    return verify_peers(news.peers, me, {})


def _box(data: bytes) -> object:
    label = Label("fuzz", 1, FEDERATION_KEY.key_id, "north", "south", "ab" * 32)
    check_box(data[:64], data[64:], label, corpus.SITE.public)
    return None


def _opened(data: bytes) -> object:
    label = Label("fuzz", 1, FEDERATION_KEY.key_id, "north", "south", "ab" * 32)
    return open_box(data, corpus.OPENING, label)


def _plan(data: bytes) -> object:
    return parse_plan(parse_canonical_json(data, "plan"))


def _settings(data: bytes) -> object:
    return parse_settings(type(_policy()), toml_of(data), "policy")


def _start(data: bytes) -> object:
    return read_start(corpus.plan().model_copy(update={"start": corpus.start()}), data)


def _signed_body(data: bytes) -> object:
    request = pb.SignedRequest()
    for kind in (pb.EnrolStatusBody, pb.PutSealedKeysBody, pb.GetSealedKeyBody, pb.RenewBody):
        request.body = data
        body_of(kind, request)
    return request


def _key_counts(path: Path) -> object:
    return read_key_counts(path)


def _model_folder(data: bytes) -> object:
    """A model's folder somebody was given: looked at whole, whatever lies in it."""
    root = _folder() / "model"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, part in unwrap(data).items():
        (root / name).write_bytes(part)
    return check_folder(ModelFolder(root), corpus.WITNESS.public)


def _checkpoint(data: bytes) -> object:
    root = _folder() / "checkpoint"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, part in unwrap(data).items():
        (root / name).write_bytes(part)
    return read_folder(root)


def _site(read: Callable[[SiteFolder], object], name: str) -> Reader:
    """Read a file of a site's folder."""

    def reader(data: bytes) -> object:
        path = _folder() / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(SiteFolder(_folder() / "site"))

    return reader


def _run(read: Callable[[RunStore], object], name: str) -> Reader:
    """Read a file of a run's folder."""

    def reader(data: bytes) -> object:
        path = _folder() / "run-1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(RunStore(_folder() / "run-1"))

    return reader


def _spooled(data: bytes) -> object:
    """Whatever lies in the inbox under whatever name."""
    spool = Spool(_folder() / "spool")
    spool.prepare()
    name = sha256_hex(data)
    (spool.inbox / f"{name}.order").write_bytes(data)
    try:
        opened = open_order(spool.read_order(name), corpus.WITNESS.public)
    finally:
        spool.finish_order(name)
    return opened


def _promise(data: bytes) -> object:
    folder = FederationFolder(_folder() / "federation")
    folder.invites.mkdir(parents=True, exist_ok=True)
    (folder.invites / "one.json").write_bytes(data)
    return invites.open_invites(folder, corpus.NOW)


def _generation(data: bytes) -> object:
    folder = FederationFolder(_folder() / "federation")
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.generation_file.write_bytes(data)
    return kept_sealed.newest(folder)


def _federation(data: bytes) -> object:
    folder = FederationFolder(_folder() / "federation")
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.settings_file.write_bytes(data)
    return folder.settings()


def _credential(path: Path) -> object:
    path.chmod(0o600)
    return credentials.read_credential(path)


def _journal(path: Path) -> object:
    return list(read_events(path))


def _events() -> bytes:
    started = RunStarted(
        ts=corpus.NOW,
        run="run-1",
        federation="fuzz",
        plan_name="fuzz",
        plan_fingerprint="ab" * 32,
        rounds=2,
        quorum=2,
        sites=("north",),
    )
    rejected = SiteRejected(ts=corpus.NOW, round=1, site="north", reason="bent")
    return b"".join(e.model_dump_json().encode() + b"\n" for e in (started, rejected))


def _decision(data: bytes) -> object:
    return Decision.read(data)


def random_seeds(count: int, size: int) -> tuple[bytes, ...]:
    """Bytes that are nothing."""
    rng = random.Random(1)
    return tuple(rng.randbytes(size) for _ in range(count))


def all_decoders() -> list[Decoder]:
    """Every reader, in a fixed order."""
    return [
        *_of_the_wire(),
        *_of_the_ledger(),
        *_of_keys(),
        *_of_documents(),
        *_of_tables(),
        *_of_files(),
    ]


def _of_the_wire() -> list[Decoder]:
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


def _of_the_ledger() -> list[Decoder]:
    written = corpus.written()
    return [
        Decoder(
            "ledger record",
            (written.line,),
            mutations.as_json,
            parse_ledger_record,
            ("common.ledger.records.parse_record", "common.ledger.records.parse_timestamp"),
        ),
        Decoder(
            "proof",
            (written.proofs["ModelUpdate"],),
            mutations.as_json,
            _proof,
            ("common.ledger.proof.Proof.from_bytes",),
        ),
        Decoder(
            "note",
            (written.receipt, written.note),
            mutations.raw,
            _note,
            ("common.ledger.notes.parse_note", "common.ledger.notes.open_note"),
        ),
    ]


def _of_keys() -> list[Decoder]:
    certificates = corpus.certificates()
    return [
        Decoder(
            "certificate",
            (certificates["client"], certificates["authority"]),
            mutations.as_pem,
            _certificate,
            ("common.crypto.certificates.parse_certificate",),
        ),
        Decoder(
            "signing request", (certificates["csr"],), mutations.as_pem, clients.requested_key, ()
        ),
        Decoder(
            "node key",
            (parse_request(corpus.request()).node_key.encode(),),
            mutations.raw,
            text(parse_node_public_key),
            ("common.crypto.certificates.parse_node_public_key",),
        ),
        Decoder(
            "public key",
            (corpus.SITE.public.text.encode(), corpus.SITE.public.hex.encode()),
            mutations.raw,
            text(PublicKey.parse),
            ("common.crypto.identity.PublicKey.parse",),
        ),
        Decoder(
            "public key's file",
            (f"{corpus.SITE.public.text}\n".encode(),),
            mutations.raw,
            filed(read_public_key, "witness.pub"),
            ("common.crypto.identity.read_public_key", "common.crypto.files.read_public"),
        ),
        Decoder(
            "sealing key",
            (corpus.OPENING.public.text.encode(),),
            mutations.raw,
            text(SealingKey.parse),
            ("common.crypto.exchange.SealingKey.parse",),
        ),
        Decoder(
            "join request",
            (corpus.request(),),
            mutations.as_json,
            _request,
            ("common.enrolment.parse_request",),
        ),
        Decoder(
            "join request's file",
            (corpus.request(),),
            mutations.as_json,
            filed(read_request, "request.json"),
            ("common.enrolment.read_request",),
        ),
        Decoder(
            "invite",
            (corpus.invite(),),
            mutations.as_toml,
            filed(read_invite, "invite.toml"),
            ("common.enrolment.read_invite",),
        ),
        Decoder(
            "time",
            (b"2026-01-31T12:00:00+00:00",),
            mutations.raw,
            text(parse_time),
            ("common.enrolment.parse_time",),
        ),
        Decoder(
            "key news",
            (corpus.sealed()[1],),
            mutations.as_json,
            _news,
            ("site_client.keys.news.KeyNews.read", "site_client.keys.boxes.open_news"),
        ),
        Decoder("box's signature", random_seeds(3, 128), mutations.raw, _box, ()),
        Decoder(
            "box",
            random_seeds(3, 64),
            mutations.raw,
            _opened,
            ("common.crypto.sealing.open_box",),
        ),
        Decoder(
            "credential",
            (corpus.credential(),),
            mutations.as_toml,
            filed(_credential, "ada.toml"),
            ("aggregator.admin.credentials.read_credential", "common.crypto.files.read_secret"),
        ),
    ]


def _of_documents() -> list[Decoder]:
    tables, released = corpus.tables(), corpus.released()
    plans = (corpus.plan().canonical(), corpus.pixel_plan().canonical())
    return [
        Decoder(
            "plan",
            plans,
            mutations.as_json,
            _plan,
            ("common.plan.reading.parse_plan", "common.settings.reading.parse_settings"),
        ),
        Decoder(
            "plan's text",
            plans,
            mutations.as_json,
            plan_of,
            (),
        ),
        Decoder(
            "plan's file",
            (corpus.plan_toml(),),
            mutations.as_toml,
            filed(read_plan, "plan.toml"),
            ("common.plan.reading.read_plan",),
        ),
        Decoder(
            "plan over the desk",
            (corpus.plan_toml(),),
            mutations.as_toml,
            parse_plan_toml,
            ("aggregator.desk.local.parse_plan_toml",),
        ),
        Decoder(
            "policy",
            (default_policy_text().encode(),),
            mutations.as_toml,
            filed(read_policy, "policy.toml"),
            ("common.policy.sections.read_policy",),
        ),
        Decoder(
            "archived policy",
            (_policy().canonical(),),
            mutations.as_json,
            parse_policy,
            ("common.policy.sections.parse_policy",),
        ),
        Decoder(
            "checkpoint",
            (corpus.checkpoint(),),
            mutations.as_parcel,
            _checkpoint,
            ("common.checkpoint.read_folder",),
        ),
        Decoder(
            "codec",
            (tables["codec"],),
            mutations.as_json,
            text(lambda said: require_planned(read_codec(said), corpus.pixel_plan().pixels)),
            (
                "common.keys.pixel_agreement.read_codec",
                "common.keys.pixels.PixelCodec.from_dict",
                "common.keys.pixel_bands.BandCodec.from_dict",
            ),
        ),
        Decoder(
            "codec of components",
            (tables["codec"],),
            mutations.as_json,
            text(read_component_codec),
            ("common.keys.pixel_agreement.read_component_codec",),
        ),
        Decoder(
            "codebook",
            (tables["codebook"],),
            mutations.as_json,
            Codebook.from_bytes,
            ("common.keys.codebook.Codebook.from_bytes",),
        ),
        Decoder(
            "keys and counts",
            (tables["key-counts"],),
            mutations.as_safetensors,
            KeyCounts.from_bytes,
            ("common.keys.key_counts.KeyCounts.from_bytes",),
        ),
        Decoder(
            "keys and counts, a file",
            (tables["key-counts"],),
            mutations.as_safetensors,
            filed(_key_counts, "keys.safetensors"),
            ("common.keys.key_counts.read_key_counts",),
        ),
        Decoder(
            "sketch",
            (tables["sketch"],),
            mutations.as_safetensors,
            lambda data: CountSketch.from_bytes(data, corpus.spec()),
            (
                "common.sketching.count_sketch.CountSketch.from_bytes",
                "common.sketching.serial.decode",
            ),
        ),
        Decoder(
            "provenance",
            (released["provenance"],),
            mutations.as_json,
            decode_provenance,
            ("common.released.provenance.decode_provenance",),
        ),
        Decoder(
            "model's card",
            (corpus.card(),),
            mutations.as_json,
            decode_card,
            ("common.released.card.decode_card",),
        ),
        Decoder(
            "model",
            (released["model"],),
            mutations.as_safetensors,
            loaded_weights,
            ("common.checkpoint.loaded_weights",),
        ),
        Decoder(
            "model's folder",
            (corpus.model_folder(),),
            mutations.as_parcel,
            _model_folder,
            ("common.released.folder.ModelFolder.read",),
        ),
        Decoder(
            "start model",
            (released["model"],),
            mutations.as_safetensors,
            _start,
            ("aggregator.rounds.training.read_start",),
        ),
        Decoder(
            "JSON",
            (b'{"a":[1,2.5,{"b":null}],"c":"d"}', b"[" * 60 + b"]" * 60),
            mutations.as_json,
            json_of,
            ("common.arrivals.texts.json_of",),
            (ValueError,),
        ),
        Decoder(
            "TOML",
            (corpus.plan_toml(), default_policy_text().encode()),
            mutations.as_toml,
            toml_of,
            ("common.arrivals.texts.toml_of",),
            (ValueError,),
        ),
    ]


def _of_tables() -> list[Decoder]:
    """Positions that people or their programs wrote down."""
    markups = (
        b'{"markups":[{"type":"Fiducial","coordinateSystem":"LPS","coordinateUnits":"mm",'
        b'"controlPoints":[{"label":"AC","position":[1.5,-2.0,3.0],"positionStatus":"defined"}]}]}'
    )
    fcsv = b"# CoordinateSystem = 0\n# columns = id,x,y,z,label\n1,1.5,-2.0,3.0,AC\n"
    return [
        Decoder("markups", (markups,), mutations.as_json, filed(read_landmarks, "a.mrk.json"), ()),
        Decoder("fcsv", (fcsv,), mutations.as_rows, filed(read_landmarks, "a.fcsv"), ()),
        Decoder(
            "table of landmarks",
            (
                b"case,landmark,x_mm,y_mm,z_mm\na,AC,1,2,3\na,PC,2,3,4\n",
                b"# unit = mm\nfilename,l_x,l_y,r_x,r_y\na.png,1,2,3,4\n",
            ),
            mutations.as_rows,
            filed(read_landmark_table, "table.csv"),
            (),
        ),
        Decoder(
            "lines of voxels",
            (b"1,2,3\n4.5,6,7\nnan,nan,nan\n",),
            mutations.as_rows,
            filed(read_voxel_lines, "a.txt"),
            (),
        ),
        Decoder(
            "table of boxes",
            (b"case,label,x0_mm,y0_mm,z0_mm,x1_mm,y1_mm,z1_mm\na,l,0,0,0,1,2,3\nb,l,,,,,,\n",),
            mutations.as_rows,
            filed(read_box_table, "boxes.csv"),
            (),
        ),
        Decoder(
            "list of files",
            (b"table.csv\n",),
            mutations.as_rows,
            filed(read_list, "list.txt"),
            (),
        ),
    ]


def _of_files() -> list[Decoder]:
    memory = b'{"v":1,"seed":"' + b"ab" * 32 + b'","held_out":[],"training":[]}'
    trouble = (
        b'{"run":"run-1","round":1,"phase":"train","plan":"p","kind":"training",'
        b'"at":"2026-01-01","problems":[{"where":"x","says":"y","fix":"z"}],"count":1}'
    )
    kept = canonical_json(
        {
            "plan": corpus.plan().canonical().decode(),
            "since": "2026-01-01T00:00:00Z",
            "run": "run-1",
            "order_sha256": "ab" * 32,
        }
    )
    name = f"worker/plans/{corpus.plan().fingerprint}.json"
    promise = b'{"site":"north","expires":"2026-01-09T00:00:00+00:00","auto_admit":true}'
    decision = b'{"event":"APPROVE","person":"Ada","plan_fingerprint":"' + b"ab" * 32 + b'"}'
    settings = (
        b'v = 1\nfederation = "f"\nsite = "north"\naddress = "127.0.0.1:1"\ndata = "d"\n'
        b'app_sha256 = "' + b"ab" * 32 + b'"\n'
    )
    return [
        Decoder(
            "site.toml",
            (settings,),
            mutations.as_toml,
            _site(lambda site: site.settings(), "site.toml"),
            (),
        ),
        Decoder(
            "federation.toml",
            (b'name = "fuzz"\naddress = "127.0.0.1:8443"\nport = 8443\n',),
            mutations.as_toml,
            _federation,
            (),
        ),
        Decoder(
            "data.toml",
            (b'landmarks = "table"\n', b"\n"),
            mutations.as_toml,
            filed(lambda path: read_data_settings(path, _folder()), "data.toml"),
            ("site_client.imaging.data_settings.read_data_settings",),
        ),
        Decoder(
            "held-out memory",
            (memory,),
            mutations.as_json,
            filed(read_memory, "heldout.json"),
            ("site_client.heldout.memory.read_memory",),
        ),
        Decoder(
            "note of trouble",
            (trouble,),
            mutations.as_json,
            _site(read_trouble, "worker/trouble.json"),
            ("site_client.trouble.read_trouble",),
        ),
        Decoder(
            "note of errors",
            (b'{"run":"run-1","errors":[]}',),
            mutations.as_json,
            _site(read_errors, "worker/errors.json"),
            ("site_client.heldout.errors.read_errors",),
        ),
        Decoder(
            "note of the key",
            (b'{"generation":1,"key_id":"ab"}',),
            mutations.as_json,
            _site(read_key_state, "worker/keys/state.json"),
            ("site_client.keys.state.read_key_state",),
        ),
        Decoder("kept plan", (kept,), mutations.as_json, _site(kept_plans, name), ()),
        Decoder(
            "decision",
            (decision,),
            mutations.as_json,
            _decision,
            ("site_client.decisions.making.Decision.read",),
        ),
        Decoder(
            "courier's note",
            (corpus.courier_note(),),
            mutations.as_json,
            filed(remembered, f"{'ab' * 32}.json"),
            (),
        ),
        Decoder(
            "promise",
            (promise,),
            mutations.as_json,
            _promise,
            ("aggregator.admin.invites.open_invites",),
        ),
        Decoder(
            "generation", (b'{"generation":1,"key_id":"ab"}',), mutations.as_json, _generation, ()
        ),
        Decoder(
            "run's journal",
            (_events(),),
            mutations.as_lines,
            filed(_journal, "events.jsonl"),
            ("aggregator.rounds.events.read_events",),
        ),
        Decoder(
            "run's plan",
            (corpus.plan().canonical(),),
            mutations.as_json,
            _run(lambda store: store.plan(), "plan.json"),
            (),
        ),
        Decoder(
            "run's options",
            (b'{"min_sites":1,"wait_s":1.0,"approval_s":2.0}',),
            mutations.as_json,
            _run(lambda store: store.options(), "options.json"),
            (),
        ),
        Decoder(
            "run's roster",
            (canonical_json([entry.model_dump() for entry in corpus.roster()]),),
            mutations.as_json,
            _run(lambda store: store.roster(), "roster.json"),
            (),
        ),
        Decoder(
            "run's round",
            (
                b'{"arrays":{},"codec":"","digest":"","documents":{},"facts":{},"key_id":"",'
                b'"link":"","round":1,"sum":""}',
            ),
            mutations.as_json,
            _run(lambda store: store.load(1), "rounds/0001/round.json"),
            ("aggregator.rounds.store.RunStore.load",),
        ),
        Decoder(
            "a child's line",
            (b'\x1e["training",3,9]',),
            mutations.raw,
            text(read_progress),
            ("common.screen.read_progress",),
        ),
        Decoder(
            "a bounded file",
            (bytes(90),),
            mutations.raw,
            filed(lambda path: read_bounded(path, 100, "a file"), "some"),
            ("common.arrivals.files.read_bounded",),
        ),
    ]

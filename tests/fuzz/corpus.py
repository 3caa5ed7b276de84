"""Valid messages of every kind, small, made by the code that makes them in earnest."""

from __future__ import annotations

import base64
import json
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization
from flwr.app import Array, ArrayRecord, ConfigRecord, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from safetensors.numpy import save

from aggregator.admin.credentials import Credential
from aggregator.admin.relays import RelayFile
from aggregator.admin.toml import as_toml
from common.canonical import canonical_json, sha256_hex
from common.checkpoint import planned_checkpoint
from common.crypto import clients
from common.crypto.certificates import (
    certificate_to_pem,
    create_authority,
    generate_node_key,
    node_public_line,
)
from common.crypto.exchange import OpeningKey
from common.crypto.identity import SigningKey
from common.crypto.sealing import Label, seal, sign_box
from common.enrolment import Invite, JoinRequest
from common.keys import MixedRadix
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import codec_text, fit_widest
from common.keys.pixel_statistics import INTENSITY_BINS, PixelSurvey
from common.ledger.log import Ledger
from common.ledger.notes import cosign_note
from common.ledger.records import ArrayRecord as LedgerArray
from common.model import initial_weights, weights_digest
from common.plan import FederationPlan, parse_plan
from common.released.card import Card, CardErrors, CardSite
from common.released.provenance import Provenance, RoundSum, sign_provenance
from common.sketching import SketchSpec
from common.sketching.serial import encode as encode_sketch
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, describe_arrays, encode
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, encode_order
from common.wire.parcel import wrap
from common.wire.records import (
    GroupCounts,
    HeavyHitters,
    PixelSketches,
    PixelStatistics,
    RoundReport,
    TaskError,
)
from common.wire.sealed_keys import SealedBox, encode_sealed
from common.wire.transport import CODE, MESSAGE_TYPE, PARCEL, RECORD
from site_client.courier.fleet import message_stub
from tests.aggregated import Past, roster_of
from tests.conftest import FEDERATION_KEY

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SITE, WITNESS = SigningKey.from_seed(b"s" * 32), SigningKey.from_seed(b"w" * 32)
OPENING = OpeningKey.generate()
RUN, NAME = "run-1", "north"
LINK = "9a" * 32
NO_OP = {
    "name": "fuzz",
    "kind": "no-op",
    "seed": 3,
    "task": {"landmarks": ["AC", "PC"], "roi": 9},
    "network": {"width": 4, "hidden": [8]},
    "experience": {"rows": 3, "columns": 64},
    "rounds": {"training": 2, "quorum": 2, "deadline_s": 5.0},
}
PIXELS = {
    "name": "fuzz-pixels",
    "kind": "pixels",
    "seed": 3,
    "pixels": {
        "bands": ["a", "b", "c", "d"],
        "components": 3,
        "bins": 6,
        "rows": 3,
        "columns": 64,
        "floor": 1000,
        "min_pixels": 1,
    },
}


@cache
def plan() -> FederationPlan:
    """A plan without work."""
    return parse_plan(NO_OP)


@cache
def pixel_plan() -> FederationPlan:
    """A plan about slides."""
    return parse_plan(PIXELS)


@cache
def envelopes() -> dict[str, Envelope]:
    """One record of each type, and what a site answers to a training order."""
    about = {"plan_fingerprint": plan().fingerprint, "site": NAME, "run": RUN, "round": 1}
    slides = about | {"plan_fingerprint": pixel_plan().fingerprint}
    keyed = {"key_id": FEDERATION_KEY.key_id, "codec": "0" * 64}
    update, sketch = Past(plan(), RUN, roster(), FEDERATION_KEY).training_records(NAME, 1, 300)
    update = replace(update, record=update.record.model_copy(update={"transitions": 100}))
    sketch = Envelope(
        sketch.record.model_copy(update={"total": 100}), {"table": np.sign(sketch.arrays["table"])}
    )
    error = TaskError(
        label="AC",
        part="training",
        searches=5,
        mean_milli=1000,
        median_milli=900,
        consensus_milli=800,
        prior_milli=10_000,
        over_10mm=0,
    )
    report = RoundReport(
        **about,
        code=ReplyCode.OK,
        images=3,
        transitions=100,
        updates=10,
        link=LINK,
        weights_sha256="ab" * 32,
        errors=(error,),
        **keyed,
    )
    table = np.arange(192, dtype=np.int64).reshape(3, 64) - 90
    histogram = np.zeros(INTENSITY_BINS, np.int64)
    histogram[INTENSITY_BINS // 2] = 20_000
    common = {"codec": "0" * 64, "slides": 1, "pixels": 20_000}
    gram = np.full((4, 4), 10**9, np.int64)
    keys = np.arange(5, dtype=np.int64)
    return {
        "ModelUpdate": update,
        "SketchTable": sketch,
        "RoundReport": Envelope(report, {}),
        "PixelStatistics": Envelope(
            PixelStatistics(**slides, **common, subject="survey"),
            {"histogram": histogram, "gram": gram},
        ),
        "PixelSketches": Envelope(
            PixelSketches(**slides, **common, rows=3, columns=64, key_id=FEDERATION_KEY.key_id),
            dict.fromkeys(("full", "prefix", "presence"), table)
            | {"prefix_counts": np.ones(pixel_plan().pixels.prefixes, np.int64)},
        ),
        "HeavyHitters": Envelope(
            HeavyHitters(**slides, **keyed, threshold=60),
            {"keys": keys, "counts": np.full(5, 100, np.int64)},
        ),
        "GroupCounts": Envelope(
            GroupCounts(**slides, **common, codebook="cd" * 32),
            {"counts": np.array([100, 200], np.int64)},
        ),
    }


def roster() -> list:
    """The run's sites: this one and two made-up ones."""
    return roster_of(NAME, SITE.public.fingerprint)


@cache
def encoded() -> dict[str, bytes]:
    """The same as bytes."""
    return {name: encode(envelope) for name, envelope in envelopes().items()}


@dataclass(frozen=True)
class Written:
    """What a small real ledger wrote, and a reply that it proves."""

    line: bytes
    note: bytes
    receipt: bytes
    proofs: dict[str, bytes]
    reply: bytes


@cache
def written() -> Written:
    """A ledger of three releases."""
    with tempfile.TemporaryDirectory(prefix="cairn-fuzz-") as name:
        folder, moments = Path(name), iter(NOW + timedelta(seconds=n) for n in range(99))
        proofs: dict[str, bytes] = {}
        with Ledger.open(folder, f"{NAME}/ledger", SITE, lambda: next(moments)) as ledger:
            places = {}
            for kind in ("ModelUpdate", "SketchTable", "RoundReport"):
                data, envelope = encoded()[kind], envelopes()[kind]
                entry = ledger.append(
                    "SEND",
                    run=RUN,
                    round=1,
                    record_type=kind,
                    payload_sha256=ledger.spool(data),
                    bytes=len(data),
                    arrays=tuple(
                        LedgerArray(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256)
                        for a in describe_arrays(envelope.arrays)
                    ),
                    plan_fingerprint=plan().fingerprint,
                    policy_sha256="ab" * 32,
                    phase="train",
                    order_sha256="cd" * 32,
                )
                places[kind] = entry.record.seq
            for kind, place in places.items():
                proofs[kind] = ledger.proof(place, 0).to_bytes()
            note, line = ledger.checkpoint, (folder / "log.jsonl").read_bytes().split(b"\n")[1]
    parts = {}
    for kind, proof in proofs.items():
        parts[f"{kind}.envelope"] = encoded()[kind]
        parts[f"{kind}.proof"] = proof
    return Written(line, note, cosign_note(note, WITNESS, NOW), proofs, wrap(parts))


@cache
def orders() -> dict[str, bytes]:
    """Orders by phase, the third with a codec and a sum."""
    texts = {
        "begin": (0, plan(), None),
        "train": (1, plan(), None),
        "sketch": (3, pixel_plan(), codec()),
    }
    return {
        phase: encode_order(
            OrderHeader(
                run=RUN,
                round=round_,
                phase=phase,
                plan=of.canonical().decode(),
                deadline_s=60,
                roster=tuple(roster()),
                sum="56" * 32 if round_ > 1 else None,
                codec=text,
            )
        )
        for phase, (round_, of, text) in texts.items()
    }


def signed(body: bytes, **parts: bytes) -> bytes:
    """An order's parcel as the aggregator signs it."""
    return wrap({"order": body, "signature": WITNESS.sign(SIGNATURE_CONTEXT + body)} | parts)


@cache
def codec() -> str:
    """A codec of components, as an order carries it."""
    pixels = np.random.default_rng(3).integers(20, 5000, (500, 4)).astype(np.int64)
    histogram = np.zeros(INTENSITY_BINS, np.int64)
    histogram[INTENSITY_BINS // 2] = 500
    survey = PixelSurvey(("a", "b", "c", "d"), 1, 500, histogram, pixels.T @ pixels)
    return codec_text(fit_widest(pixel_plan().pixels, survey))


@cache
def sums() -> bytes:
    """The sum of a round."""
    past = Past(plan(), RUN, roster(), FEDERATION_KEY)
    past.until(2)
    return past.sums[1]


def _about() -> Metadata:
    return Metadata(
        run_id=9,
        message_id="",
        src_node_id=1,
        dst_node_id=77,
        reply_to_message_id="",
        group_id="",
        created_at=1.0,
        ttl=60.0,
        message_type=MESSAGE_TYPE,
    )


@cache
def objects() -> dict[str, bytes]:
    """Flower's objects of a parcel and of a number, each set as one parcel of parts."""
    about = _about()
    array = Array(np.frombuffer(b"a parcel", np.uint8))
    contents = {
        "parcel": RecordDict({RECORD: ArrayRecord({PARCEL: array})}),
        "number": RecordDict({RECORD: ConfigRecord({CODE: 3})}),
    }
    made = {}
    for name, content in contents.items():
        message = make_message(about, content)
        pieces = {
            f"n{i}": o.deflate() for i, o in enumerate(get_all_nested_objects(message).values())
        }
        made[name] = wrap(pieces | {"root": message.object_id.encode()})
    return made


@cache
def request() -> bytes:
    """A join request, signed."""
    key = clients.generate_client_key()
    return (
        JoinRequest(
            federation="fuzz",
            site=NAME,
            node_key=node_public_line(generate_node_key()),
            ledger_key=SITE.public.text,
            sealing_key=OPENING.public.text,
            tls_csr=clients.create_signing_request(key, NAME).decode(),
            images=3,
        )
        .signed(SITE)
        .to_json()
    )


@cache
def certificates() -> dict[str, bytes]:
    """An authority, a client certificate and a signing request, PEM."""
    ca_key, authority = create_authority("Fuzz", now=NOW)
    key = clients.generate_client_key()
    name = clients.ClientName("site", NAME)
    client = clients.issue_client_certificate(
        ca_key, authority, key.public_key(), name, days=9, now=NOW
    )
    return {
        "authority": certificate_to_pem(authority),
        "client": certificate_to_pem(client),
        "csr": clients.create_signing_request(key, NAME),
    }


@cache
def sealed() -> tuple[bytes, bytes]:
    """Sealed keys as an envelope, and the courier's news of them."""
    label = Label("fuzz", 1, FEDERATION_KEY.key_id, NAME, "south", WITNESS.public.fingerprint)
    box = seal(FEDERATION_KEY, OPENING.public, label)
    signature = sign_box(box, label, SITE)
    news = {
        "v": 1,
        "newest": {"generation": 1, "key_id": FEDERATION_KEY.key_id, "renew": False},
        "peers": [{"site": NAME, "join_request": request().decode(), "generation": 1}],
        "sealed": {
            "for_site": "south",
            "from_site": NAME,
            "key_id": FEDERATION_KEY.key_id,
            "generation": 1,
            "box": box.hex(),
            "signature": signature.hex(),
        },
    }
    return encode_sealed([SealedBox(label, box, signature)]), json.dumps(news).encode()


@cache
def released() -> dict[str, bytes]:
    """Files of a model's folder."""
    provenance = Provenance(
        federation="fuzz",
        run=RUN,
        verdict="COMPLETED",
        finished="2026-01-02T03:04:05Z",
        plan=plan().fingerprint,
        start="ab" * 32,
        weights="cd" * 32,
        roster=tuple(roster()),
        rounds=(RoundSum(round=1, sites=(NAME,), samples=3, sum_sha256="ef" * 32),),
        link=LINK,
        files={"model.safetensors": "12" * 32},
    )
    return {"provenance": provenance.encode(), "model": save(initial_weights(plan()))}


@cache
def tables() -> dict[str, bytes]:
    """A codebook, counted keys and a sketch's table, with what they are of."""
    digits = MixedRadix([4, 4], ["d0", "d1"])
    keys = np.array([9, 2, 15], np.uint64)
    book = Codebook.make(digits, keys, np.array([0, 1, 2]))
    table = np.arange(192, dtype=np.int64).reshape(3, 64)
    return {
        "codebook": book.to_bytes(),
        "key-counts": KeyCounts(digits, keys, np.array([2, 3, 4])).to_bytes(),
        "sketch": encode_sketch(spec(), table),
        "codec": codec().encode(),
    }


@cache
def spec() -> SketchSpec:
    """Dimensions and key of the sketch above."""
    from site_client.worker.setup import sketch_spec

    return sketch_spec(plan(), FEDERATION_KEY)


@cache
def invite() -> bytes:
    """An invite's file."""
    from aggregator.admin.invites import invite_toml

    return invite_toml(
        Invite(
            federation="fuzz",
            site=NAME,
            address="127.0.0.1:8443",
            ca_certificate=certificates()["authority"].decode(),
            ca_sha256="ab" * 32,
            witness_key=WITNESS.public.text,
            app_sha256="cd" * 32,
            enrolment="127.0.0.1:8444",
            token="t" * 43,
            expires="2026-01-09T03:04:05+00:00",
        )
    )


def plan_toml() -> bytes:
    """A plan's file."""
    return b"""\
name = "fuzz"
kind = "no-op"
seed = 3
[task]
landmarks = ["AC", "PC"]
roi = 9
[network]
width = 4
[experience]
rows = 3
columns = 64
[rounds]
training = 2
deadline_s = 5.0
"""


def line_of(value: object) -> bytes:
    """A value as one canonical line."""
    return canonical_json(value)


def digest_of(kind: str) -> str:
    """SHA-256 of one of the encoded records."""
    return sha256_hex(encoded()[kind])


def first_link() -> str:
    """The link of the run's chain before its first round."""
    return Past(plan(), RUN, roster(), FEDERATION_KEY).links[0]


def start() -> str:
    """Digest of the weights that a run starts from."""
    return weights_digest(initial_weights(plan()))


def courier_note() -> bytes:
    """The courier's note on an order in flight."""
    stub = message_stub(make_message(_about(), RecordDict({})))
    return json.dumps(
        {
            "stub": base64.b64encode(stub).decode(),
            "order": "ab" * 32,
            "signature": "cd" * 64,
            "expires": 1767225600.5,
        }
    ).encode()


@cache
def relay_file() -> bytes:
    """A relay's one file; its keys are those of others, which its reader does not open."""
    pem = certificates()["client"].decode()
    made = RelayFile(
        federation="fuzz",
        name="east",
        address="127.0.0.1:8443",
        aggregator="127.0.0.1:9443",
        enrolment="127.0.0.1:9444",
        ca_certificate=certificates()["authority"].decode(),
        witness_key=SITE.public.text,
        server_certificate=pem,
        server_key=pem,
        node_key=pem,
        desk_key=pem,
    )
    return as_toml(made.model_dump(), multiline=True)


@cache
def credential() -> bytes:
    """A coordinator's credential, with its key."""
    key = clients.generate_client_key()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return as_toml(
        Credential(
            name="ada",
            federation="fuzz",
            address="127.0.0.1:8445",
            ca_certificate=certificates()["authority"].decode(),
            certificate=certificates()["client"].decode(),
            private_key=pem.decode(),
        ).model_dump(exclude_none=True),
        multiline=True,
    )


@cache
def card() -> bytes:
    """A model's card."""
    return Card(
        name="fuzz",
        federation="fuzz",
        run=RUN,
        verdict="COMPLETED",
        reason="",
        finished="2026-01-02T03:04:05Z",
        plan="ab" * 32,
        weights="cd" * 32,
        start="ef" * 32,
        from_seed=True,
        kind="training",
        task="landmark-3d",
        looks_for=("AC", "PC"),
        unit="mm",
        spacing_mm=2.0,
        architecture="light",
        parameters=3,
        updates=4,
        server_momentum=0.5,
        sites=(CardSite(site=NAME, images=3, rounds=1),),
        errors=(
            CardErrors(
                after=1, part="training", label="", searches=3, mean=1.5, prior=9.5, over_10mm=0.5
            ),
        ),
    ).encode()


@cache
def model_folder() -> bytes:
    """The files of a model's folder, as parts of one parcel."""
    model, provenance = released()["model"], released()["provenance"]
    return wrap(
        {
            "provenance.json": provenance,
            "provenance.sig": sign_provenance(provenance, WITNESS),
            "plan.json": plan().canonical(),
            "card.json": card(),
            "model.safetensors": model,
            "checkpoint.json": planned_checkpoint(plan(), model, RUN),
        }
    )


@cache
def checkpoint() -> bytes:
    """The files of an agent's checkpoint, as parts of one parcel."""
    model = released()["model"]
    return wrap(
        {
            "model.safetensors": model,
            "checkpoint.json": planned_checkpoint(plan(), model, RUN),
        }
    )

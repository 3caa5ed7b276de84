"""Readers of proofs, notes, keys, certificates and what enrolment brings."""

from __future__ import annotations

import random
from pathlib import Path

from aggregator.admin import credentials, relays
from aggregator.admin.enrol import check_keys
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
from common.enrolment import parse_request, parse_time, read_invite, read_request
from common.ledger.notes import ledger_key, open_note, parse_note, witness_key
from common.ledger.proof import Proof, verify_proof
from common.ledger.records import parse_record as parse_ledger_record
from site_client.keys.news import KeyNews
from site_client.keys.trust import Me, verify_peers
from tests.conftest import FEDERATION_KEY
from tests.fuzz import corpus, mutations
from tests.fuzz.decoder import Decoder, filed, text


def _proof(data: bytes) -> object:
    return verify_proof(
        Proof.from_bytes(data),
        corpus.digest_of("ModelUpdate"),
        f"{corpus.NAME}/ledger",
        corpus.SITE.public,
        None,
    )


def _note(data: bytes) -> object:
    parse_note(data)
    keys = [ledger_key(f"{corpus.NAME}/ledger", corpus.SITE.public)]
    return open_note(data, [*keys, witness_key(corpus.WITNESS.public)])


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


def _credential(path: Path) -> object:
    path.chmod(0o600)
    return credentials.read_credential(path)


def _relay_file(path: Path) -> object:
    path.chmod(0o600)
    return relays.read_relay_file(path)


def random_seeds(count: int, size: int) -> tuple[bytes, ...]:
    """Bytes that are nothing."""
    rng = random.Random(1)
    return tuple(rng.randbytes(size) for _ in range(count))


def of_the_ledger() -> list[Decoder]:
    written = corpus.written()
    return [
        Decoder(
            "ledger record",
            (written.line,),
            mutations.as_json,
            parse_ledger_record,
            (
                "common.ledger.records.parse_record",
                "common.ledger.records.parse_timestamp",
                "common.canonical.parse_some_json",
            ),
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


def of_keys() -> list[Decoder]:
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
        Decoder(
            "relay-file",
            (corpus.relay_file(),),
            mutations.as_toml,
            filed(_relay_file, "east.toml"),
            ("aggregator.admin.relays.read_relay_file", "common.crypto.files.read_secret"),
        ),
    ]

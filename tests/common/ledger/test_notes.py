"""A signed note opens only when every named key signed exactly these bytes."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import pytest

from common.crypto.identity import SigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.merkle import leaf_hash
from common.ledger.notes import (
    MAX_NOTE_BYTES,
    WITNESS_NAME,
    Checkpoint,
    cosign_note,
    ledger_key,
    ledger_origin,
    open_note,
    parse_note,
    sign_checkpoint,
    site_of,
    witness_key,
)

SITE = SigningKey.from_seed(b"\1" * 32)
WITNESS = SigningKey.from_seed(b"\2" * 32)
CHECKPOINT = Checkpoint("site-a/ledger", 7, leaf_hash(b"seven"))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BOTH = [ledger_key("site-a/ledger", SITE.public), witness_key(WITNESS.public)]


def cosigned() -> bytes:
    return cosign_note(sign_checkpoint(CHECKPOINT, SITE), WITNESS, NOW)


def test_a_cosigned_note_tells_what_was_signed_and_when():
    opened = open_note(cosigned(), BOTH)
    assert opened.checkpoint == CHECKPOINT
    assert opened.cosigned_at == {WITNESS_NAME: NOW}


def test_the_note_has_the_published_layout():
    text, _, signatures = cosigned().decode().partition("\n\n")
    assert text.split("\n") == [
        "site-a/ledger",
        "7",
        base64.b64encode(CHECKPOINT.root).decode(),
    ]
    site_line, witness_line, end = signatures.split("\n")
    assert end == ""
    dash, name, blob = site_line.split(" ")
    assert (dash, name) == ("\u2014", "site-a/ledger")
    key_id = hashlib.sha256(b"site-a/ledger\n\x01" + SITE.public.raw).digest()[:4]
    assert base64.b64decode(blob) == key_id + SITE.sign(f"{text}\n".encode())
    seconds = int(NOW.timestamp())
    key_id = hashlib.sha256(WITNESS_NAME.encode() + b"\n\x04" + WITNESS.public.raw).digest()[:4]
    message = f"cosignature/v1\ntime {seconds}\n{text}\n".encode()
    assert base64.b64decode(witness_line.split(" ")[2]) == (
        key_id + seconds.to_bytes(8, "big") + WITNESS.sign(message)
    )


def test_an_empty_set_of_required_keys_opens_nothing():
    with pytest.raises(VerificationError, match="required keys must be at least one"):
        open_note(cosigned(), [])


def test_every_required_key_must_have_signed():
    with pytest.raises(VerificationError, match="lacks a signature"):
        open_note(sign_checkpoint(CHECKPOINT, SITE), BOTH)
    stranger = SigningKey.from_seed(b"\3" * 32)
    with pytest.raises(VerificationError, match="lacks a signature"):
        open_note(cosigned(), [ledger_key("site-a/ledger", stranger.public)])
    with pytest.raises(VerificationError, match="lacks a signature"):
        open_note(cosigned(), [ledger_key("site-b/ledger", SITE.public)])


def test_a_plain_signature_cannot_pass_for_a_cosignature():
    disguised = witness_key(SITE.public)
    with pytest.raises(VerificationError):
        open_note(sign_checkpoint(CHECKPOINT, SITE), [disguised])


def test_every_flipped_bit_of_a_cosigned_note_is_noticed():
    note = cosigned()
    for position in range(len(note) * 8):
        damaged = bytearray(note)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(VerificationError):
            open_note(bytes(damaged), BOTH)


def test_every_cut_of_a_cosigned_note_is_noticed():
    note = cosigned()
    for length in range(len(note)):
        with pytest.raises(VerificationError):
            open_note(note[:length], BOTH)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace(b"\n7\n", b"\n07\n"),
        lambda note: note.replace(b"\n7\n", b"\n+7\n"),
        lambda note: note.replace(b"\n\n", b"\nextension\n\n", 1),
        lambda note: note.replace(b"site-a/ledger\n7", b"Site A\n7"),
        lambda note: note + b"\n",
        lambda note: note.replace(b"\n", b"\r\n"),
        lambda note: note + note.split(b"\n\n")[1].split(b"\n")[0] + b"\n",
        lambda note: note + b"x" * MAX_NOTE_BYTES,
        lambda note: note + note.split(b"\n\n")[1].split(b"\n")[0].replace(b"site-a", b"x") * 50,
    ],
)
def test_only_one_spelling_of_a_note_is_read(change):
    changed = change(cosigned())
    assert changed != cosigned()
    with pytest.raises(VerificationError):
        parse_note(changed)


def test_too_many_signatures_are_refused():
    note = sign_checkpoint(CHECKPOINT, SITE)
    line = note.split(b"\n\n")[1]
    crowd = b"".join(line.replace(b"site-a", b"s%d" % number) for number in range(40))
    with pytest.raises(VerificationError, match="at most 40 signatures"):
        parse_note(note + crowd)


def test_a_witness_does_not_cosign_twice():
    with pytest.raises(VerificationError):
        cosign_note(cosigned(), WITNESS, NOW)


@pytest.mark.parametrize("name", ["", "Site", "a b", "a/b", "-a", "a" * 65, "a\n", "ä"])
def test_only_plain_site_names_have_a_ledger(name):
    with pytest.raises(InputDataError):
        ledger_origin(name)


def test_a_ledgers_name_says_whose_it_is():
    assert site_of(ledger_origin("site-a")) == "site-a"

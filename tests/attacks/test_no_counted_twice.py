"""Nobody makes a quorum alone: not by names, not by keys, not by times, not by key ids."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from itertools import count

import pytest

from common.crypto.identity import PublicKey, SigningKey
from common.crypto.postquantum import PostQuantumSigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.notes import (
    Algorithm,
    Checkpoint,
    NoteKey,
    NoteSignature,
    cosignature,
    open_note,
    verify_signature,
)
from common.witness.policy import parse_policy
from common.witness.vkeys import vkey_text
from tests.common.witness.conftest import NOW, ORIGIN, Log

LOG = Log(SigningKey.from_seed(b"\1" * 32)).grow(3)
NORTH, SOUTH = (SigningKey.from_seed(bytes([seed]) * 32) for seed in (10, 11))
QUANTUM = PostQuantumSigningKey.from_seed(b"\x0a" * 32)


def key_of(name: str, key: SigningKey | PostQuantumSigningKey = NORTH) -> NoteKey:
    kind = Algorithm.COSIGNATURE if isinstance(key, SigningKey) else Algorithm.POSTQUANTUM
    return NoteKey(name, key.public, kind)


def witness(name: str, key: NoteKey, url: str = "") -> str:
    return f"witness {name} {vkey_text(key)} {url}".rstrip() + "\n"


def two_of(*lines: str) -> str:
    names = " ".join(line.split()[1] for line in lines)
    return "".join(lines) + f"group g 2 {names}\nquorum g\n"


@pytest.mark.parametrize(
    "policy",
    [
        # One key under two names.
        two_of(
            witness("a", key_of("a.example")),
            witness("b", key_of("b.example")),
            witness("c", key_of("c.example", SOUTH)),
        ),
        # One name with two kinds of key.
        two_of(
            witness("a", key_of("a.example")),
            witness("b", key_of("a.example", QUANTUM)),
            witness("c", key_of("c.example", SOUTH)),
        ),
        # One address that answers for two.
        two_of(
            witness("a", key_of("a.example"), "https://w.example"),
            witness("b", key_of("b.example", QUANTUM), "https://w.example/"),
            witness("c", key_of("c.example", SOUTH)),
        ),
        # The same, hidden in groups.
        witness("a", key_of("a.example"))
        + witness("b", key_of("a.example", QUANTUM))
        + witness("c", key_of("c.example", SOUTH))
        + "group x any a\ngroup y any b\ngroup g 2 x y c\nquorum g\n",
        # The log as its own witness.
        f"log {vkey_text(LOG.public)}\n"
        + witness("a", NoteKey("a.example", LOG.key.public, Algorithm.COSIGNATURE))
        + "quorum a\n",
    ],
)
def test_a_policy_that_counts_somebody_twice_is_refused(policy):
    with pytest.raises(InputDataError, match="count twice"):
        parse_policy(policy)


def test_a_log_that_witnesses_itself_does_not_count_where_the_policy_names_no_log():
    own = NoteKey("a.example", LOG.key.public, Algorithm.COSIGNATURE)
    note = LOG.note + cosignature(LOG.checkpoint, "a.example", LOG.key, NOW).line()
    judged = parse_policy(witness("a", own) + "quorum a\n").judge(note, log_key=LOG.public)
    assert not judged.witnessed


def two_keys_of_one_id(name: str) -> tuple[NoteKey, NoteKey]:
    seen: dict[bytes, bytes] = {}
    head = name.encode() + b"\n" + bytes([Algorithm.COSIGNATURE])
    for number in count():
        raw = hashlib.sha256(b"%d" % number).digest()
        other = seen.setdefault(hashlib.sha256(head + raw).digest()[:4], raw)
        if other != raw:
            try:
                keys = [NoteKey(name, PublicKey(r), Algorithm.COSIGNATURE) for r in (raw, other)]
            except InputDataError:
                continue  # half of all bytes are no point of the curve
            assert keys[0].key_id == keys[1].key_id
            return keys[0], keys[1]
    raise AssertionError


def test_two_keys_with_one_key_id_do_not_pass_for_each_other():
    """Four bytes are found twice among some 80,000 keys; nothing is gained by it."""
    key, twin = two_keys_of_one_id("w.example")
    with pytest.raises(InputDataError, match="count twice"):
        parse_policy(two_of(witness("a", key), witness("b", twin)).replace(" 2 ", " all "))
    honest = cosignature(LOG.checkpoint, "w.example", NORTH, NOW)
    disguised = NoteSignature("w.example", key.key_id, honest.signature)
    judged = parse_policy(witness("a", key) + "quorum a\n").judge(
        LOG.note + disguised.line(), log_key=LOG.public
    )
    assert not judged.witnessed
    assert "does not hold" in judged.reason


@pytest.mark.parametrize("key", [NORTH, QUANTUM])
@pytest.mark.parametrize("seconds", [0, 2**63, 2**64 - 1, 253_402_300_800])
def test_a_cosignature_of_no_time_is_none(key, seconds):
    honest = cosignature(LOG.checkpoint, "a.example", key, NOW)
    stamped = seconds.to_bytes(8, "big") + honest.signature[8:]
    line = NoteSignature("a.example", honest.key_id, stamped)
    with pytest.raises(VerificationError):
        verify_signature(line, key_of("a.example", key), LOG.checkpoint)


@pytest.mark.parametrize("key", [NORTH, QUANTUM])
def test_a_cosignatures_time_and_checkpoint_cannot_be_exchanged(key):
    mine = key_of("a.example", key)
    honest = cosignature(LOG.checkpoint, "a.example", key, NOW)
    later = (int(NOW.timestamp()) + 1).to_bytes(8, "big")
    moved = NoteSignature("a.example", honest.key_id, later + honest.signature[8:])
    other = Checkpoint(ORIGIN, LOG.size + 1, LOG.checkpoint.root)
    elsewhere = Checkpoint("site-b/ledger", LOG.size, LOG.checkpoint.root)
    assert verify_signature(honest, mine, LOG.checkpoint) == NOW
    for line, checkpoint in ((moved, LOG.checkpoint), (honest, other), (honest, elsewhere)):
        with pytest.raises(VerificationError):
            verify_signature(line, mine, checkpoint)


def test_an_ml_dsa_cosignature_holds_under_its_own_witnesss_name_only():
    line = cosignature(LOG.checkpoint, "a.example", QUANTUM, NOW)
    renamed = key_of("b.example", QUANTUM)
    moved = NoteSignature("b.example", renamed.key_id, line.signature)
    with pytest.raises(VerificationError):
        verify_signature(moved, renamed, LOG.checkpoint)


def test_a_signature_of_one_kind_does_not_pass_for_the_other():
    line = cosignature(LOG.checkpoint, "a.example", NORTH, NOW)
    quantum = key_of("a.example", QUANTUM)
    disguised = NoteSignature("a.example", quantum.key_id, line.signature)
    with pytest.raises(VerificationError):
        open_note(LOG.note + disguised.line(), [quantum])


def test_a_cosignature_from_the_future_does_not_count_for_who_knows_the_time():
    policy = parse_policy(witness("a", key_of("a.example")) + "quorum a\n")
    ahead = cosignature(LOG.checkpoint, "a.example", NORTH, NOW + timedelta(hours=1)).line()
    assert not policy.judge(LOG.note + ahead, log_key=LOG.public, now=NOW).witnessed

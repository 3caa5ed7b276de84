"""One site's message costs that site its share of the round, and nobody else anything."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aggregator.intake import reply as reply_module
from aggregator.intake.reply import Sender, open_reply
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import SiteRejected
from common.canonical import sha256_hex
from common.crypto.identity import SigningKey, read_signing_key
from common.errors import CairnError, ExitCode
from common.ledger.merkle import inclusion_proof, leaf_hash, tree_root
from common.ledger.notes import (
    MAX_SIGNATURES,
    Checkpoint,
    NoteSignature,
    ledger_key,
    sign_checkpoint,
    witness_key,
)
from common.ledger.proof import Proof
from common.ledger.records import make_record, record_line
from common.model import shared_shapes
from common.plan import FederationPlan, parse_plan
from common.wire.expected import Expected, RecordFloors
from common.wire.parcel import unwrap, wrap
from tests.federation.conftest import Federation
from tests.fuzz.corpus import NOW

LIAR = 102
DEEP = b"[" * 985 + b"]" * 985


@pytest.fixture
def three(tmp_path) -> Federation:
    """Three admitted sites that share one key."""
    federation = Federation(tmp_path)
    for name in ("site-a", "site-b", "site-c"):
        federation.add_site(name)
    return federation


@pytest.fixture(scope="module")
def no_op_plan() -> FederationPlan:
    """One round without training, a small network and a small sketch."""
    return parse_plan(
        {
            "name": "no-op",
            "kind": "no-op",
            "seed": 3,
            "task": {"landmarks": ["AC", "PC"], "roi": 9},
            "network": {"width": 4, "hidden": [8]},
            "experience": {"rows": 3, "columns": 64},
            "rounds": {"training": 1, "quorum": 2, "deadline_s": 5.0},
        }
    )


def proved(site, plan, run, envelope: bytes, kind: str = "RoundReport") -> bytes:
    """What a site that lies well sends: recorded, signed and proved, whatever it is."""
    key, name = read_signing_key(site.ledger_key), site.root.name
    fields = {
        "run": run,
        "round": 0,
        "record_type": kind,
        "payload_sha256": sha256_hex(envelope),
        "bytes": len(envelope),
        "arrays": (),
        "plan_fingerprint": plan.fingerprint,
        "policy_sha256": "ab" * 32,
        "phase": "begin",
        "order_sha256": "cd" * 32,
    }
    line = record_line(make_record(seq=0, event="SEND", now=NOW, site=name, fields=fields))
    hashes = [leaf_hash(line)]
    note = sign_checkpoint(Checkpoint(f"{name}/ledger", 1, tree_root(hashes)), key)
    proof = Proof(line, 0, tuple(inclusion_proof(hashes, 0)), note, 0, ())
    return wrap({f"{kind}.envelope": envelope, f"{kind}.proof": proof.to_bytes()})


def safetensors(metadata: bytes, body: bytes = b"") -> bytes:
    head = json.dumps({"__metadata__": {"cairn": metadata.decode("utf-8", "surrogatepass")}})
    text = head.encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


ENVELOPES = {
    "half a pair": safetensors(b'{"record_type":"\\ud800"}'),
    "half a pair for a name": safetensors(b'{"\\ud800":1,"record_type":"RoundReport"}'),
    "half a pair in the head": safetensors(b"x").replace(b'"x"', b'"\\ud800"'),
    "deep": safetensors(DEEP),
    "deep head": len(DEEP).to_bytes(8, "little") + DEEP,
    "digits": safetensors(b'{"record_type":"RoundReport","round":' + b"9" * 5000 + b"}"),
    "lengths": (2**64 - 1).to_bytes(8, "little") + b"{}",
    "nothing": b"",
}
PARCELS = {
    "nothing": b"",
    "deep manifest": DEEP + b"\n",
    "half a pair": b'{"parts":[{"bytes":0,"name":"\\ud800","sha256":"' + b"a" * 64 + b'"}]}\n',
    "many parts": b'{"parts":[' + b",".join([b"{}"] * 50_000) + b"]}\n",
    "no end": b"{" * (1 << 20),
    "bad proof": wrap({"RoundReport.envelope": b"x", "RoundReport.proof": DEEP}),
}


def outcome(federation, plan, lie):
    """A run in which one site's reply to the first order is what ``lie`` makes of it."""
    store, transport = federation.create_run(plan, min_sites=3), federation.transport()
    told = []

    def tamper(reply):
        if told:
            return reply
        told.append(reply)
        return lie(reply)

    transport.tamper[LIAR] = tamper
    finished = federation.conduct(store, transport)
    rejected = [e for e in federation.events(store) if isinstance(e, SiteRejected)]
    return store, finished, rejected


def check_only_the_liar_is_named(federation, finished, rejected):
    assert finished.verdict == "DEGRADED", finished.reason
    assert finished.exit_code == int(ExitCode.OK)
    assert {event.site for event in rejected} == {"site-c"}
    aside = federation.folder.quarantine / f"{rejected[0].put_aside}.json"
    assert json.loads(aside.read_text())["culprit"] == "site-c"


@pytest.mark.parametrize("name", ["half a pair for a name", "deep head"])
def test_a_site_that_proves_rubbish_is_left_out_and_the_others_finish(three, no_op_plan, name):
    site = three.sites["site-c"]
    _, finished, rejected = outcome(
        three, no_op_plan, lambda _: proved(site, no_op_plan, "run-1", ENVELOPES[name])
    )
    check_only_the_liar_is_named(three, finished, rejected)


def test_all_rubbish_that_a_site_can_prove_is_refused_and_so_is_every_parcel_that_is_none(
    three, no_op_plan
):
    site = three.sites["site-c"]
    sender = Sender(read_signing_key(site.ledger_key).public, None)
    expected = Expected(
        site="site-c",
        run="run-1",
        round=0,
        phase="begin",
        plan=no_op_plan,
        shapes=shared_shapes(no_op_plan),
        floors=RecordFloors.of(no_op_plan),
    )
    lies = [proved(site, no_op_plan, "run-1", envelope) for envelope in ENVELOPES.values()]
    for lie in (*lies, *PARCELS.values()):
        with pytest.raises(CairnError):
            open_reply(lie, sender, expected)


def test_a_parcel_that_is_none_costs_its_own_site(three, no_op_plan):
    _, finished, rejected = outcome(three, no_op_plan, lambda _: PARCELS["deep manifest"])
    check_only_the_liar_is_named(three, finished, rejected)


def test_a_note_that_leaves_no_room_for_the_receipt_costs_its_own_site(three, no_op_plan):
    """As many signatures as are read; one more, our own, would be one too many for ever."""

    def crowd(reply):
        parts = dict(unwrap(reply))
        for name in [n for n in parts if n.endswith(".proof")]:
            words = json.loads(parts[name])
            for number in range(MAX_SIGNATURES - 1):
                other = ledger_key(f"x-{number}/ledger", SigningKey.generate().public)
                words["checkpoint"] += (
                    NoteSignature(other.name, other.key_id, bytes(64)).line().decode()
                )
            parts[name] = json.dumps(
                words, ensure_ascii=False, separators=(",", ":"), sort_keys=True
            ).encode()
        return wrap(parts)

    _, finished, rejected = outcome(three, no_op_plan, crowd)
    check_only_the_liar_is_named(three, finished, rejected)


def test_a_note_under_the_witnesss_own_name_costs_its_own_site(three, no_op_plan):
    public = three.folder.witness_key().public

    def anticipate(reply):
        parts = dict(unwrap(reply))
        identity = witness_key(public)
        line = NoteSignature(identity.name, identity.key_id, bytes(72)).line().decode()
        for name in [n for n in parts if n.endswith(".proof")]:
            words = json.loads(parts[name])
            words["checkpoint"] += line
            parts[name] = json.dumps(
                words, ensure_ascii=False, separators=(",", ":"), sort_keys=True
            ).encode()
        return wrap(parts)

    _, finished, rejected = outcome(three, no_op_plan, anticipate)
    check_only_the_liar_is_named(three, finished, rejected)


@pytest.mark.parametrize("error", [RecursionError, MemoryError])
def test_what_nobody_foresaw_in_one_reply_costs_its_own_site(three, no_op_plan, monkeypatch, error):
    honest = reply_module.check_origin

    def fail(record, expected):
        if expected.site == "site-c" and expected.round == 0:
            raise error
        honest(record, expected)

    monkeypatch.setattr(reply_module, "check_origin", fail)
    _, finished, rejected = outcome(three, no_op_plan, bytes)
    check_only_the_liar_is_named(three, finished, rejected)
    assert error.__name__ in rejected[0].reason


def test_too_few_that_are_left_end_the_run_by_a_verdict(three, no_op_plan):
    plan = no_op_plan.model_copy(
        update={"rounds": no_op_plan.rounds.model_copy(update={"quorum": 3})}
    )
    _, finished, rejected = outcome(three, plan, lambda _: b"rubbish")
    assert finished.verdict == "FAILED"
    assert {event.site for event in rejected} == {"site-c"}


def test_what_nobody_foresaw_beyond_one_reply_ends_the_run_by_a_verdict(
    three, no_op_plan, monkeypatch
):
    monkeypatch.setattr(
        Conductor,
        "_merge",
        lambda *_: np.zeros(2)[5],  # an IndexError of our own
    )
    _, finished, _ = outcome(three, no_op_plan, bytes)
    assert finished.verdict == "FAILED"
    assert finished.exit_code == int(ExitCode.INTERNAL)
    assert "IndexError-" in finished.reason


def test_a_name_that_cannot_be_written_is_written_as_what_it_is(three, no_op_plan):
    """A reason quotes a field's name; half a surrogate pair in it would end the journal."""
    lie = proved(
        three.sites["site-c"],
        no_op_plan,
        "run-1",
        safetensors(b'{"\\u202e\\u0000":1,"record_type":"RoundReport"}'),
    )
    store, finished, rejected = outcome(three, no_op_plan, lambda _: lie)
    check_only_the_liar_is_named(three, finished, rejected)
    assert rejected[0].reason.isprintable()
    assert store.journal.read_text(encoding="utf-8")

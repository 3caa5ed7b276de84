"""Against a witness, and a log, that others wrote: both directions of the same protocol.

The package is `witness-log` of the Python index, by way of its own HTTP client and its
own witness; it shares no line with this repository.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from common.ledger.merkle import leaf_hash
from common.ledger.notes import open_note
from common.witness.policy import parse_policy
from common.witness.vkeys import parse_vkey, parse_witness_key, vkey_text
from common.witness.wire import AddCheckpoint
from tests.common.witness.conftest import ORIGIN, Log

witness_log = pytest.importorskip("witness_log", reason="needs witness-log (extra dev)")


@pytest.fixture
def stranger(tmp_path, log):
    """A witness that others wrote, which knows our log."""
    path = str(tmp_path / "foreign.json")
    witness_log._core.WitnessService.create_state(path)
    service = witness_log._core.WitnessService.new("witness.example/third", os.urandom(32), path)
    assert service.add_log(ORIGIN, vkey_text(log.public))
    return service


def test_a_foreign_witness_cosigns_our_checkpoints_and_we_can_tell(stranger, log):
    first = stranger.handle_add_checkpoint(log.ask(0).decode())
    seen = log.size
    status, words = stranger.handle_add_checkpoint(log.grow(11).ask(seen).decode())
    assert (first[0], status) == (200, 200)
    key = parse_witness_key(stranger.vkey())
    opened = open_note(log.note + words.encode(), [log.public, key])
    assert datetime.now(UTC) - opened.cosigned_at[key.name] < timedelta(minutes=5)
    policy = parse_policy(f"witness third {stranger.vkey()}\nquorum third\n")
    assert policy.judge(log.note + words.encode(), log_key=log.public).witnessed


def test_foreign_and_own_witness_answer_alike(stranger, bench, log):
    asks = [log.ask(0), log.ask(0), log.fork(0).grow(1, b"other").ask(1), log.ask(9), b"old x"]
    log.grow(6)
    asks += [log.ask(1), log.ask(1), log.fork(3).grow(4, b"fork").ask(7), log.ask(7)]
    asks.append(AddCheckpoint(0, (leaf_hash(b""),), log.note).to_bytes())
    unknown = Log(log.key, "site-b/ledger").grow(1)
    asks.append(unknown.ask(0))
    with bench.judge(log) as judge:
        ours = [judge.add_checkpoint(body) for body in asks]
    theirs = [stranger.handle_add_checkpoint(body.decode()) for body in asks]
    assert [answer.status for answer in ours] == [status for status, _ in theirs]
    sizes = [answer.size for answer in ours if answer.status == 409]
    assert sizes == [int(text) for status, text in theirs if status == 409]


def test_a_foreign_client_is_served_over_http(bench, tmp_path):
    journal = witness_log.open(str(tmp_path / "agent.jsonl"), os.urandom(32))
    for number in range(5):
        journal.append_intent(b"%d" % number)
    key = parse_vkey(journal.c2sp_vkey(journal.canonical_origin()))
    identity = bench.classical.public.hex
    with bench.served(logs={key.name: (key,)}) as url:
        entry = witness_log._core.witness_entry_independent(bench.name, "cairn", url, identity)
        answer = witness_log.submit_round(
            journal, [json.loads(entry)], str(tmp_path / "witnesses.json")
        )
        journal.append_intent(b"5")
        again = witness_log.submit_round(
            journal, [json.loads(entry)], str(tmp_path / "witnesses.json")
        )
    journal.close()
    assert (answer.cosignatures, again.cosignatures, again.refused) == (1, 1, None)

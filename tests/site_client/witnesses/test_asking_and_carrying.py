"""A site's ledger is witnessed while worker and courier take turns, over real sockets."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from common.errors import VerificationError
from common.ledger.layout import Layout
from common.ledger.merkle import (
    EMPTY_ROOT,
    consistency_length,
    consistency_proof,
    leaf_hash,
    tree_root,
)
from common.ledger.notes import Checkpoint, open_note, parse_note, sign_checkpoint
from common.policy import Policy
from common.witness.policy import parse_policy
from common.witness.wire import AddCheckpoint
from site_client.commands.witnesses import witnesses
from site_client.egress.policy import default_policy_text
from site_client.spool import Spool
from site_client.status import read_status
from site_client.witnesses.answers import mark_of
from site_client.witnesses.rule import (
    ContradictedError,
    UnwitnessedError,
    require_uncontradicted,
    require_witnessed,
)
from site_client.witnesses.standing import read_standing, witness_fact


def run_cli(*words: str) -> str:
    answer = CliRunner().invoke(witnesses, list(words), catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def policy_of(**words: object) -> Policy:
    text = tomllib.loads(default_policy_text())
    return Policy.model_validate(text | {"witnesses": words})


def refuse(ledger, times: int = 1) -> None:
    for _ in range(times):
        ledger.append("REFUSE", code=5)


def test_two_witnesses_see_a_ledger_to_its_end(site, ledger, north, south):
    refuse(ledger, 3)
    with north.served(site.log) as one, south.served(site.log) as two:
        policy = north.line("north", one) + south.line("south", two, key=1)
        site.name(f"{policy}group both all north south\nquorum both\n")
        asking, carrier = site.asking(ledger), site.carrier()
        site.settle(asking, carrier)
        refuse(ledger, 2)
        site.settle(asking, carrier)
    assert asking.standing.witnessed == ledger.size == 6
    assert all(seen.size == 6 and not seen.trouble for seen in asking.standing.witnesses.values())
    files = Layout(site.folder.ledger).witnessed_files()
    assert [int(path.stem) for path in files] == [6], "older ones have done their service"
    judged = parse_policy(site.folder.settings().witness_policy).judge(
        files[0].read_bytes(), log_key=site.log.public, now=datetime.now(UTC)
    )
    assert {each.algorithm for each in judged.who} == {"Ed25519", "ML-DSA-44"}
    assert witness_fact(site.folder).level == "ok"
    assert len(site.sent) == 4, "one request each time, and no more while nothing changes"


def test_a_witness_that_knows_more_than_we_remember_is_caught_up_with(site, ledger, north):
    with north.served(site.log) as url:
        site.name(f"{north.line('north', url)}quorum north\n")
        site.settle(site.asking(ledger), site.carrier())
        site.folder.witness_standing.unlink()
        refuse(ledger)
        asking = site.asking(ledger)
        site.settle(asking, site.carrier())
    assert asking.standing.witnessed == ledger.size
    assert not asking.standing.contradictions


def test_a_request_is_a_function_of_the_ledger_and_two_sizes(site, ledger, north):
    site.name(f"{north.line('north', 'http://127.0.0.1:1')}quorum north\n")
    refuse(ledger, 4)
    site.asking(ledger).turn()
    path = Spool(site.folder.spool).checkpoint_path(mark_of("http://127.0.0.1:1"))
    proof = ledger.proof(ledger.size - 1, 0)
    assert path.read_bytes() == AddCheckpoint(0, proof.consistency, ledger.checkpoint).to_bytes()


def test_a_witness_that_does_not_know_us_is_told_of_and_stops_nothing(site, ledger, north):
    with north.served() as url:
        site.name(f"{north.line('north', url)}quorum north\n")
        asking = site.asking(ledger)
        site.settle(asking, site.carrier())
    seen = next(iter(asking.standing.witnesses.values()))
    assert "does not know this ledger" in seen.trouble
    require_uncontradicted(asking.standing, policy_of())


def test_a_witness_that_is_down_is_tried_again_and_again_more_rarely(site, ledger, north):
    site.name(f"{north.line('north', 'http://127.0.0.1:9')}quorum north\n")
    asking, carrier = site.asking(ledger), site.carrier()
    site.settle(asking, carrier, turns=40)
    assert 3 <= len(site.sent) <= 8
    assert "cannot be reached" in next(iter(asking.standing.witnesses.values())).trouble
    assert witness_fact(site.folder).level == "warning"


def test_a_quorum_that_falls_behind_stops_releases_and_a_zero_never_does(site, ledger, north):
    site.name(f"{north.line('north', 'http://127.0.0.1:9')}quorum north\n")
    asking = site.asking(ledger)
    for number in range(3):
        payload = b"%d" % number
        digest = ledger.spool(payload)
        ledger.append(
            "SEND",
            run="run-1",
            round=number,
            record_type="RoundReport",
            payload_sha256=digest,
            bytes=1,
            arrays=(),
            plan_fingerprint=digest,
            policy_sha256=digest,
            phase="train",
            order_sha256=digest,
        )
    require_witnessed(asking.standing, policy_of(unwitnessed=4), ledger)
    require_witnessed(asking.standing, policy_of(unwitnessed=0), ledger)
    require_witnessed(None, policy_of(unwitnessed=1), ledger)
    with pytest.raises(UnwitnessedError, match="fewer than 3 releases"):
        require_witnessed(asking.standing, policy_of(unwitnessed=3), ledger)


def test_a_ledger_with_another_end_than_was_witnessed_does_not_open(site, north):
    with north.served(site.log) as url, site.open() as ledger:
        site.name(f"{north.line('north', url)}quorum north\n")
        refuse(ledger)
        site.settle(site.asking(ledger), site.carrier())
    layout = Layout(site.folder.ledger)
    lines = layout.log.read_bytes().split(b"\n")
    layout.log.write_bytes(lines[0] + b"\n")
    cut = Checkpoint("site-a/ledger", 1, tree_root([leaf_hash(lines[0])]))
    layout.checkpoint.write_bytes(sign_checkpoint(cut, site.key))
    with pytest.raises(VerificationError, match="witnessed"), site.open():
        pass


def test_status_and_the_command_tell_how_things_stand(site, ledger, north, tmp_path):
    with north.served(site.log) as url:
        path = tmp_path / "policy"
        path.write_text(f"{north.line('north', url)}quorum north\n")
        site.name(None)
        root = ["--site-dir", str(site.folder.root)]
        done = run_cli("set", str(path), *root)
        assert "north; from the next start" in done
        site.settle(site.asking(ledger), site.carrier())
    shown = json.loads(run_cli(*root, "--json"))
    assert shown["quorum"] == "north"
    assert shown["ledger"].startswith("site-a/ledger+")
    assert shown["standing"]["witnessed"] == 1
    assert read_status(site.folder).witnesses == read_standing(site.folder)


@pytest.mark.parametrize("m", range(18))
def test_a_proof_has_as_many_hashes_as_the_courier_expects(m):
    leaves = [leaf_hash(b"%d" % number) for number in range(40)]
    for n in range(max(m, 1), 40):
        assert len(consistency_proof(leaves[:n], m)) == consistency_length(m, n)


def test_what_is_kept_opens_with_both_keys_of_a_witness(site, ledger, north):
    with north.served(site.log) as url:
        lines = north.line("ed", url) + north.line("pq", url, key=1)
        site.name(f"{lines}group north all ed pq\nquorum north\n")
        asking = site.asking(ledger)
        site.settle(asking, site.carrier())
    note = Layout(site.folder.ledger).witnessed_note(1).read_bytes()
    assert open_note(note, [site.log.public, *north.keys]).checkpoint.size == 1
    assert len(parse_note(note).signatures) == 3
    assert len(asking.standing.witnesses) == 1, "one address is asked once"
    assert parse_note(note).checkpoint.root != EMPTY_ROOT


def test_an_order_is_answered_with_a_number_while_a_witness_contradicts():
    error = ContradictedError("witness north", "the history of this ledger", "another")
    assert int(error.code) == 23

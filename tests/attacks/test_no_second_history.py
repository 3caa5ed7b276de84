"""A site and its aggregator together cannot show one history here and another there.

The liar holds the site's ledger key, the aggregator's witness key and the disk. What it
does not hold are the witnesses' keys.
"""

from __future__ import annotations

import shutil

import pytest

from common.canonical import sha256_hex
from common.errors import InputDataError, VerificationError
from common.ledger.layout import Layout
from common.ledger.notes import Checkpoint, cosignature, parse_note, sign_checkpoint
from common.policy import Witnesses
from common.wire.codes import ReplyCode
from common.witness.policy import parse_policy
from common.witness.rotation import follow_rotation, rotation_note
from common.witness.store import origin_digest
from common.witness.vkeys import vkey_text
from common.witness.wire import AddCheckpoint
from site_client.spool import Spool
from site_client.witnesses.answers import Carried, mark_of
from site_client.witnesses.rule import ContradictedError, require_uncontradicted
from site_client.witnesses.standing import witness_fact
from tests.common.witness.conftest import NOW, ORIGIN, Log, bench, log  # noqa: F401
from tests.site_client.witnesses.conftest import ledger, north, site, south  # noqa: F401


class _Policy:
    """As much of policy.toml as the rule reads."""

    def __init__(self, contradicted: str = "stop") -> None:
        self.witnesses = Witnesses(contradicted=contradicted)


def test_a_rolled_back_log_gets_no_cosignature(bench, log):  # noqa: F811
    older = log.fork(1)
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.grow(5).ask(0))
        assert judge.add_checkpoint(older.ask(1)).status == 409
        assert judge.add_checkpoint(AddCheckpoint(6, (), older.note).to_bytes()).status == 400


@pytest.mark.parametrize("at", [0, 1, 3, 5])
@pytest.mark.parametrize("more", [0, 1, 7])
def test_a_forked_log_gets_no_cosignature_and_leaves_its_proof(bench, log, at, more):  # noqa: F811
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.grow(5).ask(0))
        forked = log.fork(at).grow(log.size - at + more, b"other")
        answer = judge.add_checkpoint(forked.ask(log.size))
        latest = judge.checkpoint(origin_digest(ORIGIN)).body
    assert answer.status == 422
    assert latest.startswith(log.checkpoint.text()), "what was cosigned stays"
    (evidence,) = (bench.folder / "evidence").iterdir()
    assert evidence.read_bytes() == forked.ask(log.size)


def _forked_copy(site, ledger):  # noqa: F811
    """The liar's ledger: the same until the first record, signed with the same key."""
    shutil.copytree(site.folder.ledger, site.folder.root / "copy")
    for number in range(3):
        ledger.append("REFUSE", code=number + 1)


def test_a_site_whose_history_changed_is_told_loudly_and_stops(site, north):  # noqa: F811
    with north.served(site.log) as url:
        site.name(f"{north.line('north', url)}quorum north\n")
        with site.open() as ledger:
            _forked_copy(site, ledger)
            site.settle(site.asking(ledger), site.carrier())
        shutil.rmtree(site.folder.ledger)
        (site.folder.root / "copy").rename(site.folder.ledger)
        site.folder.witness_standing.unlink()
        with site.open() as ledger:
            ledger.append("REFUSE", code=9)
            asking = site.asking(ledger)
            site.settle(asking, site.carrier())
            (seen,) = asking.standing.contradictions
            assert seen.proven, "our own signature is under what the witness holds"
            last = list(ledger.records())[-1]
            assert (last.event, last.code) == ("REFUSE", ReplyCode.CONTRADICTED)
            size = ledger.size
            site.settle(asking, site.carrier(), turns=30)
            assert ledger.size == size, "one record says it, however often it is said"
    for rule in ("stop", "proven"):
        with pytest.raises(ContradictedError):
            require_uncontradicted(asking.standing, _Policy(rule))
    fact = witness_fact(site.folder)
    assert (fact.level, int(fact.exit_code)) == ("bad", 4)
    assert "PROVEN" in fact.says
    assert len(list(site.folder.witness_evidence.iterdir())) == 1


def test_a_restart_takes_no_alarm_back(site, north):  # noqa: F811
    test_a_site_whose_history_changed_is_told_loudly_and_stops(site, north)
    with site.open() as ledger:  # noqa: F811
        assert site.asking(ledger).standing.contradictions


def test_a_witness_that_lies_about_a_fork_has_no_proof(site, ledger, north):  # noqa: F811
    url = "http://127.0.0.1:9"
    site.name(f"{north.line('north', url)}quorum north\n")
    asking, mark = site.asking(ledger), mark_of(url)
    asking.turn()
    stranger = Log(north.classical, ORIGIN).grow(5)
    body = Spool(site.folder.spool).checkpoint_path(mark).read_bytes()
    for held in (b"", stranger.note, ledger.checkpoint, b"\xff" * 999):
        site.seconds += 1000
        asking.turn()
        Carried(sha256_hex(body), 422, b"fork!\n", held).put(Spool(site.folder.spool), mark)
        asking.turn()
        (seen,) = asking.standing.contradictions
        assert not seen.proven
    with pytest.raises(ContradictedError):
        require_uncontradicted(asking.standing, _Policy("stop"))
    require_uncontradicted(asking.standing, _Policy("proven"))
    require_uncontradicted(asking.standing, _Policy("tell"))


def test_a_forged_cosignature_is_kept_nowhere(site, ledger, north, south):  # noqa: F811
    """The witness's address answers, with another key: a proxy in between, or a thief."""
    south.name = north.name
    with south.served(site.log) as url:
        site.name(f"{north.line('north', url)}quorum north\n")
        asking = site.asking(ledger)
        site.settle(asking, site.carrier())
    (seen,) = asking.standing.witnesses.values()
    assert "no key of the policy" in seen.trouble
    assert not Layout(site.folder.ledger).witnessed_files()


def test_an_altered_cosignature_is_kept_nowhere(site, ledger, north):  # noqa: F811
    url = "http://127.0.0.1:9"
    site.name(f"{north.line('north', url)}quorum north\n")
    asking, mark = site.asking(ledger), mark_of(url)
    asking.turn()
    body = Spool(site.folder.spool).checkpoint_path(mark).read_bytes()
    other = Checkpoint(ORIGIN, 9, b"\0" * 32)
    honest = parse_note(ledger.checkpoint).checkpoint
    line = cosignature(other, north.name, north.classical, NOW)
    assert line != cosignature(honest, north.name, north.classical, NOW)
    Carried(sha256_hex(body), 200, line.line()).put(Spool(site.folder.spool), mark)
    asking.turn()
    assert "does not hold" in asking.standing.witnesses[mark].trouble
    assert not Layout(site.folder.ledger).witnessed_files()


def test_an_answer_to_another_question_is_not_heard(site, ledger, north):  # noqa: F811
    url = "http://127.0.0.1:9"
    site.name(f"{north.line('north', url)}quorum north\n")
    asking, mark = site.asking(ledger), mark_of(url)
    asking.turn()
    for status in (200, 409, 422):
        Carried("0" * 64, status, b"99\n").put(Spool(site.folder.spool), mark)
        asking.turn()
    assert not asking.standing.contradictions


def test_another_logs_checkpoint_is_not_cosigned_for_it(bench, log):  # noqa: F811
    disguised = sign_checkpoint(Checkpoint("site-b/ledger", 1, log.checkpoint.root), log.key)
    with bench.judge(log) as judge:
        assert judge.add_checkpoint(AddCheckpoint(0, (), disguised).to_bytes()).status == 404


def test_a_rotation_that_the_old_keys_did_not_sign_changes_no_policy(north, south, tmp_path):  # noqa: F811
    policy = f"{north.line('north')}quorum north\n"
    south.name = north.name
    forged = rotation_note(north.name, 2, south.keys, south.signers, south.keys)
    signed_wrongly = rotation_note(north.name, 2, south.keys, south.signers, north.keys)
    of_another = rotation_note("x.example/w", 2, south.keys, north.signers, north.keys)
    for note in (forged, signed_wrongly, of_another, b"", forged[:-9], b"x" * 99_999):
        with pytest.raises((VerificationError, InputDataError)):
            follow_rotation(policy, note)
    honest = rotation_note(north.name, 2, south.keys, north.signers, north.keys)
    followed = follow_rotation(policy, honest)
    assert vkey_text(south.keys[0]) in followed
    with pytest.raises(VerificationError):
        follow_rotation(followed, honest)
    assert parse_policy(followed).witnesses[0].key == south.keys[0]

"""A site and an aggregator are put back from older backups in the middle of a run, and go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from aggregator.rounds.events import (
    AggregatorRestored,
    RoundFinished,
    RunFinished,
    SiteRejected,
    SiteReplied,
    SiteRestored,
)
from aggregator.rounds.transport import Arrival
from common.crypto.identity import read_signing_key
from common.errors import InputDataError
from common.ledger.layout import Layout
from common.ledger.records import parse_record
from common.ledger.verdict import Finding
from common.ledger.verify import verify_ledger
from common.wire.codes import ReplyCode
from site_client.cli import cli
from site_client.restoring import read_lost
from site_client.site import SiteFolder
from site_client.status import read_status
from site_client.worker.noop import NoOpStudy
from tests.federation.conftest import Federation, MemoryTransport


class Disasters(MemoryTransport):
    """Something happens before the orders of a round go out; ``lost`` nodes answer in vain."""

    def __init__(self, federation: Federation) -> None:
        super().__init__(federation.transport().sites)
        self.before: dict[int, Callable[[], object]] = {}
        self.lost: set[int] = set()
        self._sends = 0

    def send(self, parcels, deadline_s) -> None:
        self.before.get(self._sends, lambda: None)()
        self._sends += 1
        super().send(parcels, deadline_s)

    def receive(self):
        nothing = ReplyCode.NO_ANSWER
        arrivals = super().receive()
        return [Arrival(a.node, None, nothing) if a.node in self.lost else a for a in arrivals]


class Backup:
    """A folder as it was once."""

    def __init__(self, folder: Path, away: Path) -> None:
        self._folder, self._away = folder, away

    def take(self) -> None:
        shutil.copytree(self._folder, self._away, symlinks=True)

    def put_back(self) -> None:
        shutil.rmtree(self._folder)
        shutil.copytree(self._away, self._folder, symlinks=True)


def restore(site: SiteFolder, *more: str) -> str:
    arguments = ["restore", "--site-dir", str(site.root), "--by", "Ada Byron", "--yes", *more]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def verdict_of(federation: Federation, name: str, *notes: bytes):
    site, folder = federation.sites[name], federation.folder
    newest = folder.admitted()[name].checkpoint_file.read_bytes()
    key = read_signing_key(site.ledger_key).public
    witness = folder.witness_key().public
    return verify_ledger(site.ledger, key, witness, notes or (newest,))


def events_of_ledger(site: SiteFolder) -> list[str]:
    lines = Layout(site.ledger).log.read_bytes().splitlines()
    return [parse_record(line).event for line in lines]


@pytest.fixture
def run_with_a_restored_site(three, no_op_plan, tmp_path):
    """Site-b is put back to after round 0 when round 2 is asked; a person speaks before round 3."""
    site = three.sites["site-b"]
    backup = Backup(site.root, tmp_path / "backup")
    transport = Disasters(three)
    shown: dict[str, object] = {}

    def person_speaks() -> None:
        shown["lost"] = read_lost(site)
        shown["status"] = read_status(site).restore
        shown["events"] = events_of_ledger(site)
        shown["note"] = three.folder.admitted()["site-b"].checkpoint_file.read_bytes()
        shown["output"] = restore(site)

    transport.before = {1: backup.take, 2: backup.put_back, 3: person_speaks}
    store = three.create_run(no_op_plan, min_sites=3)
    finished = three.conduct(store, transport)
    return three, store, finished, shown


def test_a_restored_site_goes_on_in_the_same_run_after_a_recorded_gap(run_with_a_restored_site):
    federation, store, finished, shown = run_with_a_restored_site
    site = federation.sites["site-b"]
    assert (finished.verdict, finished.rounds) == ("DEGRADED", 2)
    answers = [e for e in federation.events(store) if isinstance(e, SiteReplied)]
    of_b = {e.round: e.code for e in answers if e.site == "site-b"}
    assert of_b == {
        0: ReplyCode.OK,
        1: ReplyCode.OK,
        2: ReplyCode.NO_ANSWER,
        3: ReplyCode.OK,
    }
    # Nothing was signed between the backup and the person's word.
    assert shown["events"][-1] != "RESTORE"
    assert len(shown["events"]) == shown["lost"].records
    assert "waits for you" in shown["output"]
    assert shown["status"]["round"] == 2
    assert events_of_ledger(site).count("RESTORE") == 1
    (told,) = [e for e in federation.events(store) if isinstance(e, SiteRestored)]
    assert (told.site, told.round, told.person) == ("site-b", 3, "Ada Byron")
    assert told.lost_size == shown["lost"].size
    evidence = federation.folder.admitted()["site-b"].checkpoint_file.parent
    assert [each.read_bytes() for each in evidence.glob("checkpoint.lost-*.note")] == [
        shown["note"]
    ]
    assert "Nothing has shown" in restore(site)


def test_every_audit_of_a_restored_ledger_names_the_gap(run_with_a_restored_site):
    federation, _, _, shown = run_with_a_restored_site
    for name in ("site-a", "site-c"):
        assert verdict_of(federation, name).intact
        assert not verdict_of(federation, name).gaps
    verdict = verdict_of(federation, "site-b")
    assert verdict.broken is None
    assert verdict.finding is Finding.NOT_WITNESSED
    (gap,) = verdict.gaps
    assert (gap.person, gap.size) == ("Ada Byron", shown["lost"].size)
    assert any("restored from a backup" in doubt for doubt in verdict.all_doubts)
    # The aggregator's old checkpoint is explained, and vouches for nothing.
    old = verdict_of(federation, "site-b", shown["note"])
    assert old.broken is None
    assert old.tail.witnessed == 0


def test_an_altered_checkpoint_of_what_was_lost_breaks_the_ledger(run_with_a_restored_site):
    federation = run_with_a_restored_site[0]
    layout = Layout(federation.sites["site-b"].ledger)
    lost = next(
        record
        for record in map(parse_record, layout.log.read_bytes().splitlines())
        if record.event == "RESTORE"
    )
    layout.payload(lost.payload_sha256 or "").unlink()
    assert verdict_of(federation, "site-b").broken is not None


def test_a_site_that_hides_records_behind_no_restore_is_still_found(three, no_op_plan, tmp_path):
    site = three.sites["site-b"]
    backup = Backup(site.root, tmp_path / "backup")
    transport = Disasters(three)
    transport.before = {1: backup.take, 2: backup.put_back}
    finished = three.conduct(three.create_run(no_op_plan, min_sites=3), transport)
    assert finished.verdict == "DEGRADED"
    assert verdict_of(three, "site-b").broken is not None


def test_a_restored_aggregator_repeats_its_lost_rounds_with_the_same_bits(
    three, no_op_plan, moving, tmp_path
):
    backup = Backup(three.folder.root, tmp_path / "backup")
    transport = Disasters(three)
    transport.before = {2: backup.take}
    store = three.create_run(no_op_plan, min_sites=3)
    first = three.conduct(store, transport)
    sends = {name: events_of_ledger(each).count("SEND") for name, each in three.sites.items()}
    backup.put_back()
    again = three.conduct(store, three.transport())
    assert (first.verdict, again.verdict) == ("COMPLETED", "COMPLETED")
    assert again.model_sha256 == first.model_sha256
    events = three.events(store)
    assert [e.round for e in events if isinstance(e, RoundFinished)] == [0, 1, 2, 3]
    assert len([e for e in events if isinstance(e, RunFinished)]) == 1
    told = {e.site for e in events if isinstance(e, AggregatorRestored)}
    assert told == set(three.sites)
    for name, site in three.sites.items():
        assert events_of_ledger(site).count("SEND") == sends[name]  # no second answer
        assert verdict_of(three, name).broken is None


def repeat_with_another_set(federation, plan, tmp_path, *, lost_at_first=(), lost_again=()):
    """Round 1 counts other sites when its aggregator was put back; all know the first sum.

    They learned it with the order of round 2, in which each of them failed.
    """
    backup = Backup(federation.folder.root, tmp_path / "backup")
    transport, other = Disasters(federation), Disasters(federation)

    def before_round_1() -> None:
        backup.take()
        transport.lost.update(lost_at_first)

    transport.before = {1: before_round_1, 2: transport.lost.clear}
    other.lost.update(lost_again)
    other.before = {1: other.lost.clear}
    store = federation.create_run(plan, min_sites=3)
    moves = NoOpStudy.answer

    def fail_in_round_2(study, asked):
        if asked.header.round == 2:
            raise RuntimeError("no answer")
        return moves(study, asked)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(NoOpStudy, "answer", fail_in_round_2)
        assert federation.conduct(store, transport).verdict == "FAILED"
    backup.put_back()
    finished = federation.conduct(store, other)
    assert [e for e in federation.events(store) if isinstance(e, AggregatorRestored)]
    assert not [e for e in federation.events(store) if isinstance(e, SiteRejected)]
    return store, finished


def test_a_site_that_was_missing_the_first_time_is_left_out_and_not_accused(
    three, no_op_plan, moving, tmp_path
):
    store, finished = repeat_with_another_set(three, no_op_plan, tmp_path, lost_at_first={102})
    assert finished.verdict == "DEGRADED"
    counted = {e.round: e.sites for e in three.events(store) if isinstance(e, RoundFinished)}
    assert counted[1] == ("site-a", "site-b")
    assert counted[2] == ("site-a", "site-b", "site-c")


def test_a_round_that_lacks_a_site_of_the_first_time_ends_the_run_and_accuses_nobody(
    three, no_op_plan, moving, tmp_path
):
    _, finished = repeat_with_another_set(three, no_op_plan, tmp_path, lost_again={102})
    assert finished.verdict == "FAILED"
    assert "This is an older backup" in finished.reason


def test_a_later_run_goes_on_with_a_restored_aggregator(three, no_op_plan, moving, tmp_path):
    backup = Backup(three.folder.root, tmp_path / "backup")
    three.conduct(three.create_run(no_op_plan, min_sites=3), three.transport())
    backup.take()
    three.conduct(three.create_run(no_op_plan, "run-2", min_sites=3), three.transport())
    backup.put_back()
    finished = three.conduct(three.create_run(no_op_plan, "run-3", min_sites=3), three.transport())
    assert finished.verdict == "COMPLETED"
    for name in three.sites:
        assert verdict_of(three, name).broken is None


def test_a_restore_of_nothing_is_refused(three):
    site = three.sites["site-a"]
    assert "Nothing has shown" in restore(site)
    site.lost.write_text("{}")
    with pytest.raises(InputDataError):
        read_lost(site)

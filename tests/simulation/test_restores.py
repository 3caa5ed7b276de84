"""Machines put back from backups in the middle of a run; and who then breaks which law.

The planted defects below are one for each law of restores: a law that nothing breaks says
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from _pytest.mark import ParameterSet

from aggregator.rounds.events import AggregatorRestored, RoundFinished, SiteRestored
from aggregator.rounds.minutes import Minutes
from aggregator.rounds.store import RunStore
from common.errors import VerificationError
from common.ledger import proof as proofs
from common.ledger.log import Ledger
from common.ledger.recovery import LostTailError
from site_client.decisions import making
from site_client.egress.history import History
from site_client.worker import loop
from site_client.worker.answering import Answering
from site_client.worker.failures import RestoreWaitsError, UntrustedError
from tests.simulation.conftest import played
from tests.simulation.faults import FAILURES, PATIENCE, SPOOLS, Fault, drawn
from tests.simulation.laws import broken
from tests.simulation.trees import Tree, checkpoint_of
from tests.simulation.world import World


def some(cases: Iterable[object], *default: object) -> list[ParameterSet]:
    """All cases, of which the default suite plays these."""
    marks = {case: () if case in default else pytest.mark.slow for case in cases}
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=mark)
        for case, mark in marks.items()
    ]


def put_back(exchange: int, party: str, backup_of: int, **wanted: Any) -> Fault:
    """The first fault that puts a machine back so; ``wanted`` are attributes of it."""
    kind = "put back unasked" if wanted.pop("unasked", False) else "put back"
    for at in range(500):
        fault = Fault(exchange, party, kind, at)
        if fault.backup_of == backup_of and all(getattr(fault, n) == v for n, v in wanted.items()):
            return fault
    raise LookupError(f"no fault of exchange {exchange} is {wanted}")


def counted(world: World) -> dict[int, tuple[str, ...]]:
    return {e.round: e.sites for e in world.events if isinstance(e, RoundFinished)}


@pytest.mark.parametrize(
    ("spool", "backup_of"), some([(s, b) for s in SPOOLS for b in (-1, 0, 1)], ("kept", 0))
)
def test_a_site_that_is_put_back_goes_on_once_a_person_has_spoken(template, root, spool, backup_of):
    for patience in PATIENCE[:2]:
        fault = put_back(2, "site-02", backup_of, spool=spool, patience=patience)
        world = played(template, root / str(patience), [fault])
        assert broken(world) == []
        assert len(world.words) == 1
        (restored,) = [e for e in world.events if isinstance(e, SiteRestored)]
        assert (restored.site, restored.round) == ("site-02", 2 + patience)
        # Nobody is waited for: the rounds meanwhile count the others.
        missing = [number for number, sites in counted(world).items() if "site-02" not in sites]
        assert missing == list(range(2, 2 + patience))


def test_a_site_whose_people_are_never_asked_signs_nothing(template, root):
    world = played(template, root / "world", [put_back(2, "site-02", 1, unasked=True)])
    assert broken(world) == []
    assert world.words == []
    assert [departure.life for departure in world.left["site-02"].departures] == [0, 0]
    before, after = (Tree.read(site.ledger) for site in world.lives("site-02"))
    assert after.lines == before.lines[: len(after.lines)]
    assert world.sites["site-02"].lost.exists()
    assert counted(world)[3] == ("site-01", "site-03")


@pytest.mark.parametrize(
    ("exchange", "backup_of"),
    some([(1, 0), (2, 1), (3, 1), (3, 2), (4, -1), (4, 3)], (3, 1), (4, -1)),
)
def test_an_aggregator_that_is_put_back_repeats_its_rounds(template, root, exchange, backup_of):
    world = played(template, root / "world", [put_back(exchange, "aggregator", backup_of)])
    assert broken(world) == []
    assert world.whole()
    assert world.finished is not None
    assert world.finished.verdict == "COMPLETED"
    assert world.finished.model_sha256 == template.digest
    assert list(counted(world)) == [0, 1, 2, 3]
    assert len(world.past_federations()) == 1


def test_an_aggregator_says_which_receipts_it_is_shown_and_lacks(template, root):
    world = played(template, root / "world", [put_back(3, "aggregator", 1)])
    told = {e.site: e for e in world.events if isinstance(e, AggregatorRestored)}
    assert told.keys() == world.sites.keys()
    held = {name: checkpoint_of(note).size for name, (note, _) in world.held[0].items()}
    assert all(told[name].cosigned == size for name, size in held.items())


@pytest.mark.parametrize(
    ("how", "beside"),
    some([(h, b) for h in FAILURES for b in (False, True)], ("power cut", True)),
)
def test_a_machine_may_fail_while_it_is_put_right(template, root, how, beside):
    fault = put_back(2, "site-01", 1, patience=0, beside=beside)
    told = set()
    for at in range(4, 44, 3):
        world = played(template, root / str(at), [fault, Fault(2, "site-01", how, at)], at)
        assert broken(world) == [], f"at operation {at}: {world.story}"
        told |= {line.rpartition("(")[2] for line in world.story if "crashes" in line}
        assert Tree.read(world.sites["site-01"].ledger).restores
    assert how == "disk full" or "person)" in told  # it failed before their eyes, too


def test_sites_and_aggregator_may_all_be_put_back(template, root):
    faults = [
        put_back(1, "site-01", 0, patience=0),
        put_back(2, "site-01", 1, patience=0),
        put_back(2, "site-02", 0, patience=1),
        put_back(3, "aggregator", 1),
    ]
    world = played(template, root / "world", faults)
    assert broken(world) == []
    assert len(world.backups.used) == len(faults)


def test_an_aggregator_may_be_put_back_to_before_a_gap_that_it_had_journalled(template, root):
    """It knows again what the site has lost, and is shown the gap again."""
    faults = [put_back(2, "site-01", 0, patience=0), put_back(4, "aggregator", 2)]
    world = played(template, root / "world", faults)
    assert broken(world) == []
    before, after = world.past_federations()[0], world.federation
    for folder in (before, after):
        assert list((folder.sites / "site-01").glob("checkpoint.lost-*.note"))
    assert len(world.words) == 1


def test_each_checkpoint_that_a_site_lost_is_kept_though_it_lost_as_many_records_before(
    template, root
):
    faults = [put_back(exchange, "site-01", 1, patience=0) for exchange in (2, 3)]
    world = played(template, root / "world", faults)
    assert broken(world) == []
    folder = world.federation.sites / "site-01"
    kept = [checkpoint_of(path.read_bytes()) for path in folder.glob("checkpoint.lost-*.note")]
    assert (len({each.root for each in kept}), len({each.size for each in kept})) == (2, 1)


def test_restores_are_drawn_beside_what_a_seed_drew_before():
    sites = ("site-01", "site-02", "site-03")
    schedules = [drawn(seed, sites, 4) for seed in range(60)]
    restored = [[f for f in faults if f.kind.startswith("put back")] for faults in schedules]
    assert 20 < sum(map(bool, restored)) < 40
    assert {f.party for faults in restored for f in faults} == {*sites, "aggregator"}
    assert {f.kind for faults in restored for f in faults} == {"put back", "put back unasked"}


# Planted defects.


@contextmanager
def a_site_that_goes_on_silently() -> Iterator[None]:
    """Takes a checkpoint that its ledger lacks for one that it has."""
    honest = Ledger.add_receipt

    def add_receipt(ledger, note, witness):
        try:
            return honest(ledger, note, witness)
        except LostTailError:
            return False

    with mock.patch.object(Ledger, "add_receipt", add_receipt):
        yield


@contextmanager
def an_aggregator_that_takes_any_tree() -> Iterator[None]:
    """Lets a ledger go on from something else than what was seen of it."""
    with (
        a_site_that_goes_on_silently(),
        mock.patch.object(proofs, "_verify_continuation", return_value=None),
    ):
        yield


@contextmanager
def a_site_that_says_so_by_a_number() -> Iterator[None]:
    """Notes what is lost, tells the aggregator, and works on."""
    honest = Answering._trust

    def trust(answers, opened):
        try:
            honest(answers, opened)
        except RestoreWaitsError as error:
            raise UntrustedError("it lacks records") from error

    with (
        mock.patch.object(Answering, "_trust", trust),
        mock.patch.object(loop, "read_lost", return_value=None),
    ):
        yield


@contextmanager
def a_restore_that_names_nothing() -> Iterator[None]:
    def forget(site, *_):
        site.lost.unlink()
        return []

    with mock.patch.object(making, "record_restore", forget):
        yield


@contextmanager
def a_restore_that_names_what_never_was() -> Iterator[None]:
    def invent(site, ledger, lost, person):
        more = {"payload_sha256": ledger.spool(lost.note), "bytes": len(lost.note)}
        entry = ledger.append(
            "RESTORE", lost_size=lost.size, lost_root="0" * 64, person=person, **more
        )
        site.lost.unlink()
        return [entry.record]

    with mock.patch.object(making, "record_restore", invent):
        yield


@contextmanager
def an_aggregator_that_keeps_no_evidence() -> Iterator[None]:
    with mock.patch.object(Minutes, "restored", return_value=None):
        yield


@contextmanager
def an_aggregator_that_does_not_say_that_it_forgot() -> Iterator[None]:
    with mock.patch.object(Minutes, "forgotten", return_value=None):
        yield


@contextmanager
def an_aggregator_that_reads_other_bits() -> Iterator[None]:
    """Resumes from weights that are not those which it has written."""
    honest = RunStore.load

    def load(store, round_):
        state = honest(store, round_)
        return replace(
            state, arrays={name: a + a.dtype.type(1) for name, a in state.arrays.items()}
        )

    with mock.patch.object(RunStore, "load", load):
        yield


@contextmanager
def an_aggregator_that_gives_up_when_reminded() -> Iterator[None]:
    def refuse(*_):
        raise VerificationError("it does not remember that")

    with mock.patch.object(Minutes, "forgotten", refuse):
        yield


@contextmanager
def a_history_that_forgets_what_was_asked() -> Iterator[None]:
    """Lets rounds be answered again that lie before the one that was asked."""
    honest = History.count

    def count(history, record):
        if record.event != "RESTORE":
            honest(history, record)

    with mock.patch.object(History, "count", count):
        yield


SITE_BACK = (put_back(2, "site-01", 0, spool="lost", patience=0),)
ROUND_SKIPPED = (
    # A lying aggregator asks round 2 of a site that was put back; then round 1 is repeated.
    Fault(1, "site-01", "round skipped", 1),
    put_back(1, "site-01", 0, patience=1, beside=True),
    put_back(1, "site-02", 0, patience=2),
)
AGGREGATOR_BACK = (put_back(3, "aggregator", 1),)
DEFECTS: dict[str, tuple[Callable[[], Any], tuple[Fault, ...]]] = {
    "a_site_signs_only_what_goes_on_from_what_it_was_shown": (
        a_site_that_goes_on_silently, SITE_BACK,
    ),
    "a_site_that_waits_for_a_person_signs_nothing": (
        a_site_that_says_so_by_a_number, SITE_BACK,
    ),
    "what_a_person_said_is_recorded": (a_restore_that_names_nothing, SITE_BACK),
    "what_is_named_as_lost_was_there": (a_restore_that_names_what_never_was, SITE_BACK),
    "what_was_taken_and_lost_is_covered_by_what_is_named": (
        an_aggregator_that_takes_any_tree, SITE_BACK,
    ),
    "the_aggregator_goes_on_from_every_checkpoint_or_says_why": (
        an_aggregator_that_keeps_no_evidence, SITE_BACK,
    ),
    "an_aggregator_that_was_put_back_says_so": (
        an_aggregator_that_does_not_say_that_it_forgot, AGGREGATOR_BACK,
    ),
    "repeated_rounds_come_to_the_same_bits": (
        an_aggregator_that_reads_other_bits, AGGREGATOR_BACK,
    ),
    "a_run_ends_and_says_how": (an_aggregator_that_gives_up_when_reminded, AGGREGATOR_BACK),
    "no_round_is_answered_again_after_a_restore": (
        a_history_that_forgets_what_was_asked, ROUND_SKIPPED,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "law",
    some(
        DEFECTS,
        "a_site_signs_only_what_goes_on_from_what_it_was_shown",
        "an_aggregator_that_was_put_back_says_so",
        "no_round_is_answered_again_after_a_restore",
    ),
)
def test_a_planted_defect_breaks_the_law_that_it_is_planted_for(template, root, law):
    defect, faults = DEFECTS[law]
    with defect():
        found = broken(played(template, root / "world", faults))
    assert law in {breach.partition(":")[0] for breach in found}
    assert broken(played(template, root / "mended", faults)) == []

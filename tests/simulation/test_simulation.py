"""Federations under drawn faults keep the laws; a federation that is broken on purpose does not.

The planted defects are what shows that the simulation can fail: a disk that forgets, a
door that hands over before it records, sites that believe any sum.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from common.sums import derivation
from site_client.egress.release import Door
from tests.simulation.conftest import played
from tests.simulation.disks import Disk
from tests.simulation.faults import Fault, Kind, drawn
from tests.simulation.laws import broken
from tests.simulation.world import Template


def test_the_laws_hold_under_drawn_faults(template, root):
    breaches = {}
    for seed in range(8):
        faults = drawn(seed, template.sites, template.exchanges)
        breaches[seed] = broken(played(template, root / str(seed), faults, seed))
    assert not any(breaches.values()), breaches


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(1000, 1600, 100))
def test_the_laws_hold_under_hundreds_of_drawn_schedules(template, root, first):
    breaches = {}
    for seed in range(first, first + 100):
        faults = drawn(seed, template.sites, template.exchanges)
        breaches[seed] = broken(played(template, root / str(seed), faults, seed))
    assert not any(breaches.values()), breaches


def test_a_schedule_is_played_again_by_its_seed(template, root):
    faults = [Fault(1, "site-02", "power cut", 40), Fault(2, "aggregator", "killed", 30)]
    stories = [played(template, root / name, faults, 7).story for name in ("one", "two")]
    assert stories[0] == stories[1]
    assert sum("crashes" in line for line in stories[0]) == 2


@pytest.mark.parametrize("how", ["killed", "power cut", "disk full"])
def test_a_site_that_fails_at_any_operation_of_its_answer_goes_on(template, root, how: Kind):
    for number, at in enumerate((3, 40, 75, 96)):
        world = played(template, root / str(number), [Fault(1, "site-01", how, at)], at)
        assert broken(world) == []
        assert world.finished is not None
        assert world.finished.verdict in ("COMPLETED", "DEGRADED")


@pytest.mark.parametrize("how", ["killed", "power cut", "disk full"])
def test_an_aggregator_that_fails_at_any_operation_is_resumed(template, root, how: Kind):
    for number, at in enumerate((2, 17, 45)):
        world = played(template, root / str(number), [Fault(1, "aggregator", how, at)], at)
        assert broken(world) == []
        assert world.crashes or how == "disk full"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("party", ["site-01", "aggregator"])
@pytest.mark.parametrize("how", ["killed", "power cut", "disk full"])
def test_a_machine_may_fail_at_every_single_operation(template, root, party, how: Kind):
    for at in range(1, 121):
        world = played(template, root / str(at), [Fault(1, party, how, at)], at)
        assert broken(world) == [], f"at operation {at}"
        shutil.rmtree(root / str(at))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_sites_go_through_two_hundred_rounds_with_faults_all_along(root):
    template = Template.make(root, sites=10, rounds=200)
    faults = drawn(3, template.sites, template.exchanges, count=480)
    world = played(template, root / "world", faults)
    assert broken(world) == []
    assert world.crashes > 50


# Planted defects.


@contextmanager
def a_disk_that_forgets() -> Iterator[None]:
    """Answers every fsync and keeps nothing."""
    with mock.patch.object(Disk, "synced", return_value=None):
        yield


@contextmanager
def a_door_that_hands_over_first() -> Iterator[None]:
    """Puts the parcel into the outbox before anything is recorded."""
    honest = Door._complete

    def hasty(door, question, answer):
        with mock.patch.object(Door, "_record", lambda door, answer, *_: _unproven(answer)):
            honest(door, question, answer)
        honest(door, question, answer)

    with mock.patch.object(Door, "_complete", hasty):
        yield


def _unproven(answer):
    return answer.model_copy(update={"proofs": ("{}",) * len(answer.payloads)})


@contextmanager
def sites_that_believe_any_sum() -> Iterator[None]:
    with mock.patch.object(derivation, "verify_sum", return_value=None):
        yield


def test_a_disk_that_forgets_breaks_a_law(template, root):
    found = breaches_under(a_disk_that_forgets, "power cut", template, root, range(20, 80, 8))
    assert {"every_byte_that_left_is_recorded", "ledgers_verify"} & found


def test_a_door_that_hands_over_before_it_records_breaks_a_law(template, root):
    kills = range(74, 96, 4)
    found = breaches_under(a_door_that_hands_over_first, "killed", template, root, kills)
    assert "every_byte_that_left_is_recorded" in found


def test_sites_that_believe_any_sum_break_a_law(template, root):
    with sites_that_believe_any_sum():
        world = played(template, root / "world", [Fault(2, "site-01", "sum altered", 1)])
        found = {breach.partition(":")[0] for breach in broken(world)}
    assert "a_forged_order_gets_a_number_and_no_more" in found
    assert broken(played(template, root / "mended", world.faults)) == []


def breaches_under(defect, how: Kind, template: Template, root: Path, places: range) -> set[str]:
    """Names of the laws that break when a defect meets failures at these operations."""
    found = set()
    for at in places:
        with defect():
            world = played(template, root / str(at), [Fault(1, "site-01", how, at)], at)
            found |= {breach.partition(":")[0] for breach in broken(world)}
        if found:
            break
    return found

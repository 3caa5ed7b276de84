"""The federation key changes between two runs, or in the middle of one: nobody mixes keys."""

from __future__ import annotations

import pytest

from common.crypto.keyed import FederationKey
from site_client.keys.ring import KeyRing

OLD, NEW = FederationKey(bytes(16)), FederationKey(bytes(range(16)))


@pytest.fixture
def rotated(federation):
    """Three sites that have the first generation, each ready to be given the second."""
    for name in ("site-a", "site-b", "site-c"):
        KeyRing(federation.add_site(name)).add(1, OLD)
    return federation


def give_second(federation, *names: str) -> None:
    for name in names:
        KeyRing(federation.sites[name]).add(2, NEW)


def test_a_run_in_which_the_key_changes_keeps_the_key_it_began_with(rotated, no_op_plan):
    store, transport = rotated.create_run(no_op_plan), rotated.transport()
    plain, rounds = transport.send, []

    def send(parcels, deadline_s) -> None:
        rounds.append(len(parcels))
        if len(rounds) == 2:
            give_second(rotated, "site-a", "site-b", "site-c")
        plain(parcels, deadline_s)

    transport.send = send
    finished = rotated.conduct(store, transport)
    assert len(rounds) > 2
    assert finished.verdict == "COMPLETED"
    for site in rotated.sites.values():
        ring = KeyRing(site)
        assert ring.of_run("run-1") == OLD
        assert ring.newest().key == NEW


def test_the_next_run_has_the_newest_key_and_the_old_one_is_removed(rotated, no_op_plan):
    give_second(rotated, "site-a", "site-b", "site-c")
    store = rotated.create_run(no_op_plan, "run-2")
    assert rotated.conduct(store, rotated.transport()).verdict == "COMPLETED"
    for site in rotated.sites.values():
        assert [path.name for path in site.key_ring.glob("*.key")] == ["000002.key"]
        assert not site.federation_key.exists()


def test_a_site_that_has_not_got_the_new_key_is_left_out_and_named(rotated, no_op_plan):
    give_second(rotated, "site-a", "site-b")
    store = rotated.create_run(no_op_plan, "run-2", min_sites=1)
    finished = rotated.conduct(store, rotated.transport())
    assert finished.verdict == "DEGRADED"
    told = [event for event in rotated.events(store) if getattr(event, "site", "") == "site-c"]
    assert "another key or quantiser" in " ".join(getattr(event, "reason", "") for event in told)

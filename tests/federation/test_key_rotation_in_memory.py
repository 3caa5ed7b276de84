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


def test_under_the_default_policy_two_runs_with_two_keys_come_to_the_same_model(
    strict, moving, no_op_plan
):
    for site in strict.sites.values():
        KeyRing(site).add(1, OLD)
    strict.acquaint(plan=no_op_plan)
    digests, key_ids = [], []
    for run in ("run-1", "run-2"):
        store = strict.create_run(no_op_plan, run, min_sites=3)
        finished = strict.conduct(store, strict.transport())
        assert (finished.verdict, finished.reason) == ("COMPLETED", "")
        digests.append(finished.model_sha256)
        key_ids.append(store.load(0).agreement.key_id)
        give_second(strict, "site-a", "site-b", "site-c")
    assert digests[0] == digests[1], "what is averaged does not depend on the key"
    assert key_ids[0] != key_ids[1], "sums and sketches are made under it"


def test_a_run_that_is_resumed_after_a_rotation_goes_on_under_its_own_key(rotated, no_op_plan):
    store, transport = rotated.create_run(no_op_plan), rotated.transport()
    plain = transport.send

    def send(parcels, deadline_s) -> None:
        plain(parcels, deadline_s)
        if len(transport.sent[100]) == 2:
            transport.silent.update({101, 102})

    transport.send = send
    assert rotated.conduct(store, transport).verdict == "FAILED"
    give_second(rotated, "site-a", "site-b", "site-c")
    resumed = rotated.conduct(store, rotated.transport())
    assert resumed.rounds == 2
    assert {KeyRing(site).of_run("run-1") for site in rotated.sites.values()} == {OLD}

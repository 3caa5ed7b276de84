"""Whole runs in which every site derives the weights itself, from sums that it verifies.

Under the default policy: the sites know each other, and a person has approved the plan.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest

from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import RoundFinished, SiteLate, SiteRejected, SiteReplied
from common.canonical import sha256_hex
from common.crypto.identity import read_public_key
from common.ledger.verify import verify_ledger
from common.plan import FederationPlan, parse_plan
from common.sums.addition import decode_sum
from common.sums.derivation import ForgedSumError
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, decode, unpack
from common.wire.orders import decode_order
from common.wire.parcel import unwrap, wrap
from common.wire.records import RoundReport
from common.wire.transport import sum_part
from site_client.worker import answering

SITES = ("site-a", "site-b", "site-c")
NODES = {"site-a": 100, "site-b": 101, "site-c": 102}


class InterruptedRunError(KeyboardInterrupt):
    """The aggregator's process ends here."""


@pytest.fixture
def plan_of(no_op_plan) -> Callable[..., FederationPlan]:
    """The plan of these runs, with other rounds."""

    def make(**rounds: object) -> FederationPlan:
        asked = no_op_plan.model_dump(mode="json")
        return parse_plan(asked | {"rounds": asked["rounds"] | rounds})

    return make


@pytest.fixture
def acquainted(strict, moving):
    """Three sites of the default policy whose staff have confirmed each other."""
    del moving
    strict.acquaint()
    return strict


def approve(federation, plan, *names: str) -> None:
    federation.acquaint(*names, plan=plan)


def at_each_order(transport, before=None, after=None) -> None:
    """Do something before or after the order of a round goes out: told round and how often."""
    honest, times = transport.send, {}

    def send(parcels, deadline_s):
        round_ = decode_order(unwrap(next(iter(parcels.values())))["order"]).header.round
        times[round_] = times.get(round_, 0) + 1
        if before is not None:
            before(round_, times[round_])
        honest(parcels, deadline_s)
        if after is not None:
            after(round_, times[round_])

    transport.send = send


def chain_of(site, run: str) -> tuple[dict, dict[str, np.ndarray]]:
    """What a run has come to by a site's own computation: words and arrays."""
    return unpack((site.worker / "state" / run / "chain.safetensors").read_bytes())


def assert_same_chain(federation, store, *names: str) -> None:
    """What these sites (default: all) computed is, bit for bit, what the aggregator has."""
    state = store.load(store.finished_rounds()[-1])
    for name in names or SITES:
        words, arrays = chain_of(federation.sites[name], store.name)
        assert words["link"] == state.link
        assert words["total"] == state.facts["sketch_total"]
        theirs = {f"model/{n.removeprefix('weights/')}": a for n, a in arrays.items()}
        theirs = {
            {"model/table": "experience/table"}.get(n, n.replace("model/velocity", "velocity")): a
            for n, a in theirs.items()
        }
        assert set(theirs) == set(state.arrays)
        for key, array in state.arrays.items():
            np.testing.assert_array_equal(theirs[key], array)


def reports(transport, site: str) -> list[RoundReport]:
    """What a site said of every order, oldest first."""
    parts = [unwrap(reply)["RoundReport.envelope"] for reply in transport.sent[NODES[site]]]
    return [decode(part).record for part in parts]


def counted(federation, store) -> dict[int, tuple[str, ...]]:
    """Whose answers are in each round."""
    return {e.round: e.sites for e in federation.events(store) if isinstance(e, RoundFinished)}


def assert_ledgers_intact(federation) -> None:
    for site in federation.sites.values():
        keys = [read_public_key(path) for path in (site.ledger / "ledger.pub", site.witness_key)]
        assert verify_ledger(site.ledger, *keys).intact


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_three_sites_under_the_default_policy_come_to_the_aggregators_weights(
    acquainted, plan_of, momentum
):
    plan = plan_of(server_momentum=momentum)
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan, min_sites=3), acquainted.transport()
    finished = acquainted.conduct(store, transport)
    assert (finished.verdict, finished.reason, finished.rounds) == ("COMPLETED", "", 2)
    assert store.load(0).digest != store.load(1).digest != store.load(2).digest
    assert_same_chain(acquainted, store)
    for name in SITES:
        told = reports(transport, name)
        assert [r.weights_sha256 for r in told] == [
            store.load(number).digest for number in (0, 0, 1, 2)
        ]
        assert [r.link for r in told] == [store.load(number).link for number in (0, 0, 1, 2)]
    assert_ledgers_intact(acquainted)


def test_orders_hold_words_only_and_are_the_same_for_every_site(acquainted, plan_of):
    plan = plan_of()
    approve(acquainted, plan)
    transport, seen = acquainted.transport(), []
    honest = transport.send

    def send(parcels, deadline_s):
        seen.append({node: unwrap(parcel) for node, parcel in parcels.items()})
        honest(parcels, deadline_s)

    transport.send = send
    acquainted.conduct(acquainted.create_run(plan, min_sites=3), transport)
    assert len(seen) == 4
    for parts in seen:
        assert len({sha256_hex(mine["order"]) for mine in parts.values()}) == 1
        for mine in parts.values():
            assert len(mine["order"]) < 8192
            named = {"order", "signature", "receipt", "turn"}
            assert {name for name in mine if name not in named} <= {sum_part(1), sum_part(2)}


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_the_same_seed_gives_the_same_digest_twice(acquainted, plan_of, momentum):
    plan, outcomes = plan_of(server_momentum=momentum), []
    approve(acquainted, plan)
    for run in ("run-1", "run-2"):
        store = acquainted.create_run(plan, run, min_sites=3)
        digest = acquainted.conduct(store, acquainted.transport()).model_sha256
        outcomes.append((digest, store.load(3).arrays["experience/table"].tobytes()))
    assert outcomes[0] == outcomes[1]


def test_a_site_that_was_away_for_rounds_catches_up_and_takes_part_again(acquainted, plan_of):
    plan = plan_of(training=4, server_momentum=0.8)
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan, min_sites=3), acquainted.transport()

    def come_and_go(round_, _):
        transport.down = {102} if round_ in (0, 1) else set()

    at_each_order(transport, after=come_and_go)
    finished = acquainted.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert finished.reason == "site-c was absent or late (rounds 1-2)"
    late = [(e.round, e.site) for e in acquainted.events(store) if isinstance(e, SiteLate)]
    assert late == [(1, "site-c"), (2, "site-c")]
    assert counted(acquainted, store) == {
        0: SITES,
        1: ("site-a", "site-b"),
        2: ("site-a", "site-b"),
        3: SITES,
        4: SITES,
        5: SITES,
    }
    assert [r.link for r in reports(transport, "site-c")][1:] == [
        store.load(number).link for number in (2, 3, 4)
    ]
    assert {r.code for r in reports(transport, "site-c")} == {ReplyCode.OK}
    assert_same_chain(acquainted, store)


def test_a_site_that_was_away_at_the_beginning_joins_in_the_middle(acquainted, plan_of):
    plan = plan_of(training=3)
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan), acquainted.transport()
    transport.down = {102}
    at_each_order(transport, after=lambda round_, _: transport.down.clear() if round_ == 1 else 0)
    finished = acquainted.conduct(store, transport)
    assert finished.reason == "site-c was absent or late (rounds 0-1)"
    assert counted(acquainted, store)[2] == SITES
    assert_same_chain(acquainted, store)


def test_a_site_that_lost_its_state_catches_up_within_the_round_and_without_a_blemish(
    acquainted, plan_of
):
    plan = plan_of(training=4, server_momentum=0.8)
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan, min_sites=3), acquainted.transport()

    def lose(round_, times):
        if (round_, times) == (3, 1):
            shutil.rmtree(acquainted.sites["site-b"].worker / "state")

    at_each_order(transport, before=lose)
    finished = acquainted.conduct(store, transport)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    said = [(r.round, r.code) for r in reports(transport, "site-b")]
    assert (3, ReplyCode.BEHIND) in said
    assert (3, ReplyCode.OK) in said
    told = [e for e in acquainted.events(store) if isinstance(e, SiteReplied)]
    assert {e.code for e in told} == {ReplyCode.OK}
    assert_same_chain(acquainted, store)
    assert_ledgers_intact(acquainted)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_a_run_resumed_after_every_round_ends_with_the_same_digest(acquainted, plan_of, momentum):
    plan = plan_of(training=3, server_momentum=momentum)
    approve(acquainted, plan)
    whole = acquainted.create_run(plan, "run-1", min_sites=3)
    acquainted.conduct(whole, acquainted.transport())
    parts = acquainted.create_run(plan, "run-2", min_sites=3)
    for stop in range(1, 5):
        transport = acquainted.transport()

        def end(round_, _, stop=stop):
            if round_ == stop:
                raise InterruptedRunError

        at_each_order(transport, before=end)
        with pytest.raises(InterruptedRunError):
            acquainted.conduct(parts, transport)
        assert parts.finished_rounds() == list(range(stop))
    finished = acquainted.conduct(parts, acquainted.transport())
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    first, second = whole.load(4), parts.load(4)
    assert first.digest == second.digest
    assert set(first.arrays) == set(second.arrays)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(second.arrays[name], array)
    assert_same_chain(acquainted, parts)


def test_a_run_that_ends_between_an_answer_and_its_file_goes_on_with_the_same_answer(
    acquainted, plan_of
):
    plan = plan_of()
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan, min_sites=3), acquainted.transport()
    honest = transport.receive

    def receive():
        arrivals = honest()
        if len(transport.sent[102]) == 3:  # all have answered round 2
            raise InterruptedRunError
        return arrivals

    transport.receive = receive
    with pytest.raises(InterruptedRunError):
        acquainted.conduct(store, transport)
    assert store.finished_rounds() == [0, 1]
    again = acquainted.transport()
    finished = acquainted.conduct(store, again)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    for node in NODES.values():
        before, after = unwrap(transport.sent[node][2]), unwrap(again.sent[node][0])
        assert before["ModelUpdate.envelope"] == after["ModelUpdate.envelope"]
    assert_same_chain(acquainted, store)


def test_after_a_rejection_in_mid_run_the_sum_is_that_of_the_rest(acquainted, plan_of):
    plan = plan_of(training=3, server_momentum=0.8)
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan, min_sites=3), acquainted.transport()

    def flip_a_bit(reply: bytes) -> bytes:
        parts = unwrap(reply)
        if len(transport.sent[101]) == 3:  # round 2
            changed = bytearray(parts["ModelUpdate.envelope"])
            changed[-1] ^= 1
            parts["ModelUpdate.envelope"] = bytes(changed)
        return wrap(parts)

    transport.tamper[101] = flip_a_bit
    finished = acquainted.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert "site-b was rejected" in finished.reason
    members = {n: decode_sum(store.load(n).sum).group("ModelUpdate").members for n in (1, 2, 3)}
    assert members == {1: SITES, 2: ("site-a", "site-c"), 3: SITES}
    assert_same_chain(acquainted, store)


# A site that lies about its tag.


def lie(monkeypatch, *rounds: int, site: str = "site-b") -> None:
    """Make one site's tags wrong in these rounds."""
    honest = answering.tagged

    def tagged(envelopes, key, link):
        answer = honest(envelopes, key, link)
        return [
            wrong(e) if e.record.site == site and e.record.round in rounds else e for e in answer
        ]

    def wrong(envelope: Envelope) -> Envelope:
        tag = getattr(envelope.record, "tag", None)
        if tag is None:
            return envelope
        bent = f"{int(tag, 16) ^ 1:016x}"
        return Envelope(envelope.record.model_copy(update={"tag": bent}), envelope.arrays)

    monkeypatch.setattr(answering, "tagged", tagged)


@pytest.mark.parametrize(("round_", "liar"), [(1, "site-a"), (2, "site-b"), (3, "site-c")])
def test_a_wrong_tag_is_refused_and_the_run_goes_on_without_the_liar(
    acquainted, plan_of, monkeypatch, round_, liar
):
    lie(monkeypatch, round_, site=liar)
    plan = plan_of(training=3, server_momentum=0.8)
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan, min_sites=3), acquainted.transport()
    finished = acquainted.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert finished.reason.startswith(f"{liar} was rejected: its tag spoils the sum")
    honest = tuple(name for name in SITES if name != liar)
    for name in honest:
        assert ReplyCode.FORGED_SUM in {r.code for r in reports(transport, name)}
    rejected = [e for e in acquainted.events(store) if isinstance(e, SiteRejected)]
    assert [(e.round, e.site) for e in rejected] == [(round_, liar)]
    sites = counted(acquainted, store)
    assert {sites[number] for number in range(round_, 5)} == {honest}
    assert {sites[number] for number in range(1, round_)} <= {SITES}
    assert_same_chain(acquainted, store, *honest)
    assert_ledgers_intact(acquainted)


def test_a_site_that_lies_in_every_round_is_found_once(acquainted, plan_of, monkeypatch):
    lie(monkeypatch, 1, 2, 3)
    plan = plan_of(training=3)
    approve(acquainted, plan)
    store = acquainted.create_run(plan, min_sites=3)
    finished = acquainted.conduct(store, acquainted.transport())
    assert finished.verdict == "DEGRADED"
    rejected = [e.site for e in acquainted.events(store) if isinstance(e, SiteRejected)]
    assert rejected == ["site-b"]
    assert counted(acquainted, store)[2] == ("site-a", "site-c")
    assert_same_chain(acquainted, store, "site-a", "site-c")


def test_of_two_sites_nobody_can_tell_who_lied_and_the_run_says_so(three, plan_of, monkeypatch):
    lie(monkeypatch, 1)
    store, transport = three.create_run(plan_of(), min_sites=2), three.transport()
    transport.down = {102}
    finished = three.conduct(store, transport)
    assert (finished.verdict, finished.exit_code) == ("FAILED", 4)
    assert "the sites refuse what round 1 came to" in finished.reason
    assert "no single site to blame" in finished.reason
    assert store.load(1).digest, "what round 1 came to stays on disk"


def test_one_site_that_says_a_good_sum_is_forged_stops_nobody(acquainted, plan_of, monkeypatch):
    honest = answering.Answering._derive

    def contrary(worker, order, key, policy):
        if worker._settings.site == "site-b" and order.header.round == 2:
            raise ForgedSumError("sum", "one that holds", "one that does not")
        return honest(worker, order, key, policy)

    monkeypatch.setattr(answering.Answering, "_derive", contrary)
    plan = plan_of(training=3)
    approve(acquainted, plan)
    store = acquainted.create_run(plan, min_sites=3)
    finished = acquainted.conduct(store, acquainted.transport())
    assert finished.verdict == "DEGRADED"
    assert re.fullmatch(r"site-b the site could not verify .* \(round 2\)", finished.reason)
    assert counted(acquainted, store)[3] == SITES


def test_a_changed_sum_on_its_way_to_one_site_is_refused_there_and_costs_it_the_round(
    acquainted, plan_of
):
    plan = plan_of(training=3)
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan, min_sites=3), acquainted.transport()
    honest = transport.send

    def send(parcels, deadline_s):
        parts = unwrap(parcels[101])
        if sum_part(1) in parts and sum_part(2) not in parts:
            changed = bytearray(parts[sum_part(1)])
            changed[-1] ^= 1
            parts[sum_part(1)] = bytes(changed)
        honest({**parcels, 101: wrap(parts)}, deadline_s)

    transport.send = send
    finished = acquainted.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    codes = {r.round: r.code for r in reports(transport, "site-b")}
    assert codes[2] is ReplyCode.FORGED_SUM
    assert codes[3] is ReplyCode.OK, "the next order brings the sums that it lacks"
    assert_same_chain(acquainted, store)


# Beside whom, from what, and with which key.


def test_sites_that_nobody_has_confirmed_take_no_part_and_say_so(strict, no_op_plan):
    store, transport = strict.create_run(no_op_plan, min_sites=3), strict.transport()
    finished = strict.conduct(store, transport)
    assert (finished.verdict, finished.exit_code) == ("FAILED", 5)
    assert {r.code for name in SITES for r in reports(transport, name)} == {ReplyCode.UNKNOWN_PEERS}
    assert "too few of the run's sites are confirmed there: `cairn-site peers`" in finished.reason


def test_the_roster_of_a_run_does_not_change_when_a_site_is_admitted_in_its_middle(
    acquainted, plan_of
):
    plan = plan_of()
    approve(acquainted, plan)
    store, transport = acquainted.create_run(plan, min_sites=3), acquainted.transport()

    def come(round_, _):
        if round_ == 1:
            acquainted.add_site("site-d", strict=True)

    at_each_order(transport, before=come)
    assert acquainted.conduct(store, transport).verdict == "COMPLETED"
    assert [entry.site for entry in store.roster()] == list(SITES)


def test_a_run_starts_from_the_model_that_an_earlier_one_came_to(acquainted, plan_of):
    plan = plan_of()
    approve(acquainted, plan)
    first = acquainted.create_run(plan, "run-1", min_sites=3)
    came_to = acquainted.conduct(first, acquainted.transport()).model_sha256
    asked = plan.model_dump(mode="json")
    further = parse_plan(asked | {"start": came_to})
    approve(acquainted, further)
    second, transport = acquainted.create_run(further, "run-2", min_sites=3), acquainted.transport()
    finished = acquainted.conduct(second, transport)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert {reports(transport, name)[0].weights_sha256 for name in SITES} == {came_to}
    assert second.load(0).digest == came_to
    assert finished.model_sha256 != came_to
    assert_same_chain(acquainted, second)


def test_a_model_that_no_site_computed_is_refused_by_all_of_them(acquainted, plan_of, monkeypatch):
    plan = plan_of()
    approve(acquainted, plan)
    first = acquainted.create_run(plan, "run-1", min_sites=3)
    came_to = acquainted.conduct(first, acquainted.transport()).model_sha256
    for site in acquainted.sites.values():
        shutil.rmtree(site.worker / "models")  # as if another federation had made it
    asked = plan.model_dump(mode="json")
    further = parse_plan(asked | {"start": came_to})
    approve(acquainted, further)
    second, transport = acquainted.create_run(further, "run-2", min_sites=3), acquainted.transport()
    finished = acquainted.conduct(second, transport)
    assert (finished.verdict, finished.exit_code) == ("FAILED", 5)
    assert "the plan starts from a model that the site does not know" in finished.reason
    codes = {r.code for name in SITES for r in reports(transport, name)}
    assert codes == {ReplyCode.UNKNOWN_START}


def test_a_model_that_the_staff_named_is_started_from(acquainted, plan_of):
    plan = plan_of()
    approve(acquainted, plan)
    first = acquainted.create_run(plan, "run-1", min_sites=3)
    came_to = acquainted.conduct(first, acquainted.transport()).model_sha256
    site = acquainted.sites["site-c"]
    shutil.rmtree(site.worker / "models")
    text = site.policy_file.read_text()
    site.policy_file.write_text(text.replace("start_models = []", f'start_models = ["{came_to}"]'))
    asked = plan.model_dump(mode="json")
    further = parse_plan(asked | {"start": came_to})
    approve(acquainted, further)
    second = acquainted.create_run(further, "run-2", min_sites=3)
    assert acquainted.conduct(second, acquainted.transport()).verdict == "COMPLETED"
    assert_same_chain(acquainted, second)


def test_a_plan_of_public_sketches_has_sums_that_hold_all_the_same(acquainted, plan_of):
    asked = plan_of().model_dump(mode="json")
    plan = parse_plan(asked | {"limits": asked["limits"] | {"privacy_tier": 0}})
    for site in acquainted.sites.values():
        text = site.policy_file.read_text()
        site.policy_file.write_text(text.replace("least_tier = 1", "least_tier = 0"))
    approve(acquainted, plan)
    store = acquainted.create_run(plan, min_sites=3)
    finished = acquainted.conduct(store, acquainted.transport())
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert_same_chain(acquainted, store)


def test_the_conductor_needs_no_key_of_the_federation(acquainted, plan_of):
    plan = plan_of()
    approve(acquainted, plan)
    store = acquainted.create_run(plan, min_sites=3)
    Conductor(
        acquainted.folder, store, acquainted.transport(), acquainted.turn(), sleep=lambda _: None
    ).run()
    kept = b"".join(p.read_bytes() for p in acquainted.folder.root.rglob("*") if p.is_file())
    assert acquainted.key.secret not in kept
    assert acquainted.key.secret.hex().encode() not in kept

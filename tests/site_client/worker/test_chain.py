"""A site goes on from sums that hold, in the run, round and history that it knows; from no other.

Each refusal has a number at the coordinator and a record at the site, trains nothing, and
spoils nothing: the honest sum of the same round is taken afterwards.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.canonical import sha256_hex
from common.crypto.keyed import FederationKey
from common.model import initial_weights, weight_shapes, weights_digest
from common.plan import FederationPlan
from common.sums.addition import (
    Group,
    Sum,
    add_records,
    decode_sum,
    encode_sum,
    sum_digest,
)
from common.sums.averaging import moved, with_momentum
from common.sums.fixed_point import UNIT
from common.sums.summand import Summand, summand_of
from common.sums.tags import add_tags
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, pack, unpack
from common.wire.orders import RosterEntry, decode_order
from site_client.worker import loop
from site_client.worker.chain_file import FILE
from site_client.worker.loop import Worker
from site_client.worker.noop import NoOpStudy
from site_client.worker.training import TrainingStudy
from tests.aggregated import OTHERS, Past, ledger_key_of, roster_of
from tests.site_client.worker.conftest import ledger_of, refusals

RUN = "run-1"
UPDATE, SKETCH = "ModelUpdate", "SketchTable"


@pytest.fixture
def worked(monkeypatch) -> list[str]:
    """What opened an image, trained or evaluated: the name of each time."""
    seen: list[str] = []

    def noted(owner, name):
        honest = getattr(owner, name)

        def note(*args, **kwargs):
            seen.append(name)
            return honest(*args, **kwargs)

        monkeypatch.setattr(owner, name, note)

    noted(loop, "make_study")
    noted(TrainingStudy, "answer")
    noted(NoOpStudy, "answer")
    return seen


@pytest.fixture
def quick(make_site):
    """A site of a plan without work, whose chain is a plan's like any other."""
    return make_site(kind="no-op")


def ask(site, order):
    """What the site says to an order, by a worker that starts for it."""
    digest = site.put(order)
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
    return site.reply(digest)


def report(reply):
    return reply["RoundReport"].record


def told(site, round_, reply) -> bytes:
    """The honest sum of a round: of the site and the others."""
    past = site.past()
    others = {name: past.training_records(name, round_) for name in OTHERS}
    return past.add({"north": reply.values(), **others})


def chain_of(site, run=RUN) -> bytes | None:
    path = site.folder.worker / "state" / run / FILE
    return path.read_bytes() if path.exists() else None


def refused(site, order, code, worked, field=None):
    """The order gets this number and one record; nothing was worked on, nothing is believed."""
    worked.clear()
    before, chain = len(ledger_of(site)), chain_of(site)
    reply = ask(site, order)
    assert set(reply) == {"RoundReport"}
    said = report(reply)
    assert said.code is code
    assert (said.images, said.weights_sha256, said.link) == (0, None, None)
    assert worked == []
    body = sha256_hex(parcel.unwrap(order)["order"])
    refusal, *sent = (r for r in ledger_of(site)[before:] if r.event != "GENESIS")
    # The same number in answer to the same order is recorded as sent once.
    sent = sent or [r for r in ledger_of(site) if (r.event, r.order_sha256) == ("SEND", body)]
    assert (refusal.event, [r.record_type for r in sent]) == ("REFUSE", ["RoundReport"])
    header = decode_order(parcel.unwrap(order)["order"]).header
    for record in (refusal, *sent):
        assert (record.run, record.order_sha256) == (header.run, body)
        assert (record.round, record.phase, record.code) == (header.round, header.phase, code)
    if field is not None:
        assert refusal.detail.field == field
    assert chain_of(site) == chain
    return refusal


# Sums that do not hold.


def rebuilt(data: bytes, kind: str, change: Callable[[Group], Group]) -> bytes:
    total = decode_sum(data)
    return encode_sum(replace(total, groups={**total.groups, kind: change(total.groups[kind])}))


def altered(site, honest, reply):
    """One unit more in one coordinate."""
    del site, reply
    metadata, arrays = unpack(honest)
    bent = {name: array.copy() for name, array in arrays.items()}
    bent[f"{UPDATE}/fc1.weight"].reshape(-1)[7] += 1
    return pack(metadata, bent)


def altered_table(site, honest, reply):
    del site, reply
    metadata, arrays = unpack(honest)
    bent = {name: array.copy() for name, array in arrays.items()}
    bent[f"{SKETCH}/table"].reshape(-1)[0] -= 1
    return pack(metadata, bent)


def with_counts(group, by):
    counts = {name: count + by for name, count in group.summand.counts.items()}
    return replace(group, summand=Summand(counts, group.summand.arrays))


def one_sample_more(site, honest, reply):
    del site, reply
    return rebuilt(honest, UPDATE, lambda group: with_counts(group, 1))


def one_key_fewer(site, honest, reply):
    del site, reply
    return rebuilt(honest, SKETCH, lambda group: with_counts(group, -1))


def doubled(site, honest, reply):
    """The site's own records twice, under the names of the honest set."""
    del site
    for kind in (UPDATE, SKETCH):
        own = summand_of(reply[kind])
        tag = int(reply[kind].record.tag, 16)

        def twice(group, own=own, tag=tag):
            counts = {n: c + own.counts[n] for n, c in group.summand.counts.items()}
            arrays = {n: a + own.arrays[n] for n, a in group.summand.arrays.items()}
            return Group(group.members, Summand(counts, arrays), add_tags([group.tag, tag]))

        honest = rebuilt(honest, kind, twice)
    return honest


def alone_as_everybody(site, honest, reply):
    """The site's own records as the sum of all."""
    del honest
    own = {"north": [reply[UPDATE], reply[SKETCH]]}
    total = add_records(RUN, 1, own)
    claimed = {k: replace(g, members=("east", "north")) for k, g in total.groups.items()}
    del site
    return encode_sum(replace(total, groups=claimed))


def alone(site, honest, reply):
    """The site's own records, as what they are; fewer than the quorum."""
    del site, honest
    return encode_sum(add_records(RUN, 1, {"north": [reply[UPDATE], reply[SKETCH]]}))


def fewer_than_named(site, honest, reply):
    """West's summand is missing, and west is named."""
    del honest
    past = elsewhere(site)
    past.add({"north": reply.values(), "east": past.training_records("east", 1)})
    total = decode_sum(past.sums[1])
    claimed = {
        kind: replace(group, members=("east", "north", "west"))
        for kind, group in total.groups.items()
    }
    return encode_sum(replace(total, groups=claimed))


def fewer_named(site, honest, reply):
    """West's summand is there, and west is not named."""
    del site, reply
    for kind in (UPDATE, SKETCH):
        honest = rebuilt(honest, kind, lambda g: replace(g, members=("east", "north")))
    return honest


def other_sets(site, honest, reply):
    """Both records hold, but are of different sites."""
    past = elsewhere(site)
    past.add({"north": reply.values(), "east": past.training_records("east", 1)})
    two, three = decode_sum(past.sums[1]), decode_sum(honest)
    return encode_sum(replace(three, groups={**three.groups, SKETCH: two.groups[SKETCH]}))


def without_table(site, honest, reply):
    del site, reply
    total = decode_sum(honest)
    return encode_sum(replace(total, groups={UPDATE: total.groups[UPDATE]}))


def with_a_stranger(site, honest, reply):
    """A holder of the key that is not of the run."""
    del honest
    past = elsewhere(site)
    return past.add({"north": reply.values(), "mallory": past.training_records("mallory", 1)})


def elsewhere(site, run=RUN, key=None, **changes) -> Past:
    return Past(site.plan, run, site.roster, key or site.key, **changes)


def next_rounds(site, honest, reply):
    """The sum of another round, and says so."""
    del reply
    past = elsewhere(site)
    past.sums[1], past.links[1:] = honest, site.past().links[1:2]
    return past.until(3)[2]


def next_rounds_renamed(site, honest, reply):
    total = decode_sum(next_rounds(site, honest, reply))
    return encode_sum(Sum(RUN, 1, total.groups))


def another_runs(site, honest, reply):
    del honest, reply
    return elsewhere(site, run="run-2").until(2)[1]


def another_runs_renamed(site, honest, reply):
    total = decode_sum(another_runs(site, honest, reply))
    return encode_sum(Sum(RUN, 1, total.groups))


def another_historys(site, honest, reply):
    """Of the same sites, run and round, that began elsewhere."""
    del honest, reply
    return elsewhere(site, start="ab" * 32).until(2)[1]


def another_rosters(site, honest, reply):
    """Of sites that were told of other sites."""
    del honest, reply
    roster = roster_of("north", "ab" * 32)
    return Past(site.plan, RUN, roster, site.key).until(2)[1]


def another_keys(site, honest, reply):
    """Of somebody who knows everything but the federation key."""
    del honest, reply
    return elsewhere(site, key=FederationKey(bytes(16))).until(2)[1]


def bent_summand(name, change):
    """A sum whose tags hold, of an update that is not of the plan's form."""

    def make(site, honest, reply):
        del honest, reply
        past = elsewhere(site)
        sent = {}
        for other in OTHERS:
            update, sketch = past.training_records(other, 1)
            records = {UPDATE: update, SKETCH: sketch}
            kind = SKETCH if name == "table" else UPDATE
            arrays = dict(records[kind].arrays)
            arrays[name] = change(arrays[name])
            records[kind] = Envelope(records[kind].record, arrays)
            sent[other] = list(records.values())
        return past.add(sent)

    return make


def as_floats(site, honest, reply):
    """Weights in place of whole numbers, not all of them finite."""
    del site, reply
    metadata, arrays = unpack(honest)
    name = f"{UPDATE}/fc1.bias"
    return pack(metadata, arrays | {name: np.full(arrays[name].shape, np.nan, np.float32)})


def one_more_array(site, honest, reply):
    del site, reply
    metadata, arrays = unpack(honest)
    return pack(metadata, arrays | {"weights": np.zeros(4, np.int64)})


FORGERIES = {
    "altered": altered,
    "altered table": altered_table,
    "one sample more": one_sample_more,
    "one key fewer": one_key_fewer,
    "a doubled site": doubled,
    "alone as everybody": alone_as_everybody,
    "alone": alone,
    "a missing site": fewer_than_named,
    "a site that is not named": fewer_named,
    "records of other sets": other_sets,
    "without the table": without_table,
    "with a stranger": with_a_stranger,
    "another round's": next_rounds,
    "another round's, renamed": next_rounds_renamed,
    "another run's": another_runs,
    "another run's, renamed": another_runs_renamed,
    "another history's": another_historys,
    "another roster's": another_rosters,
    "another key's": another_keys,
    "another network's": bent_summand("fc1.bias", lambda a: a[:-1]),
    "another shape's": bent_summand("fc1.weight", np.transpose),
    "a table of another shape": bent_summand("table", lambda a: a[:, :-1]),
    "no whole numbers": as_floats,
    "one more array": one_more_array,
    "not a sum": lambda *_: b"junk",
    "nothing": lambda *_: b"",
}


def after_round_1(site):
    reply = ask(site, site.order(1, "train"))
    return site, reply, told(site, 1, reply)


@pytest.fixture
def trained(make_site):
    """A site that has trained round 1; its answer; the honest sum of that round."""
    return after_round_1(make_site())


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_sum_is_refused_and_the_honest_one_is_taken_afterwards(quick, worked, name):
    site, reply, honest = after_round_1(quick)
    forged = FORGERIES[name](site, honest, reply)
    assert forged != honest
    refusal = refused(site, site.order(2, "train", sums={1: forged}), ReplyCode.FORGED_SUM, worked)
    assert (refusal.phase, refusal.round) == ("train", 2)
    again = report(ask(site, site.order(2, "train")))
    assert again.link == site.past().links[1]
    assert again.weights_sha256 == came_to(site.plan, [honest])


@pytest.mark.parametrize("forge", [altered, doubled, fewer_than_named, next_rounds_renamed])
def test_nothing_is_trained_on_a_forged_sum_and_the_honest_one_is(trained, worked, forge):
    site, reply, honest = trained
    order = site.order(2, "train", sums={1: forge(site, honest, reply)})
    refused(site, order, ReplyCode.FORGED_SUM, worked)
    again = ask(site, site.order(2, "train"))
    assert any(np.abs(array).max() > 0 for array in again[UPDATE].arrays.values())
    assert report(again).weights_sha256 == came_to(site.plan, [honest])


def came_to(plan: FederationPlan, sums: list[bytes]) -> str:
    """Digest of the weights after these sums, computed apart from the site's chain."""
    weights, velocity, momentum = initial_weights(plan), {}, plan.rounds.server_momentum
    for data in sums:
        summand = decode_sum(data).groups[UPDATE].summand
        samples = summand.counts["samples"]
        mean = {n: a.astype(np.float64) / (UNIT * samples) for n, a in summand.arrays.items()}
        if momentum:
            mean, velocity = with_momentum(mean, velocity, momentum)
        weights = moved(weights, mean)
    return weights_digest(weights)


def test_a_forged_sum_under_the_honest_ones_digest_is_refused_and_the_order_is_answered(
    trained, worked
):
    """Whoever swaps what lies beside an order spoils that parcel, and no other."""
    site, reply, honest = trained
    named = sum_digest(honest)
    forged = altered(site, honest, reply)
    order = site.order(2, "train", sums={1: forged}, sum=named)
    refused(site, order, ReplyCode.FORGED_SUM, worked)
    genuine = site.order(2, "train", sums={1: honest}, sum=named)
    assert parcel.unwrap(genuine)["order"] == parcel.unwrap(order)["order"]
    assert UPDATE in ask(site, genuine)


@pytest.mark.parametrize("named", ["ab" * 32, None])
def test_a_sum_that_holds_but_is_not_the_orders_is_refused(trained, worked, named):
    site, _, _ = trained
    order = site.order(2, "train", sum=named)
    refused(site, order, ReplyCode.FORGED_SUM, worked, field="sum")
    assert UPDATE in ask(site, site.order(2, "train"))


def test_a_first_order_that_names_a_sum_is_refused(quick, worked):
    for round_, phase in ((0, "begin"), (1, "train")):
        order = quick.order(round_, phase, sum="ab" * 32)
        refused(quick, order, ReplyCode.FORGED_SUM, worked, field="sum")
    assert UPDATE in ask(quick, quick.order(1, "train"))


def test_a_second_sum_of_a_round_cannot_replace_the_one_that_was_taken(quick, worked):
    """Both hold: the aggregator left a site out of one of them."""
    ask(quick, quick.order(1, "train"))
    honest = quick.past().until(2)
    images = quick.folder.data()
    away = images.rename(images.parent / "away")
    assert report(ask(quick, quick.order(2, "train"))).code is ReplyCode.BAD_DATA
    away.rename(images)
    other = elsewhere(quick)
    everybody = (*OTHERS, "north")
    other.add({name: other.training_records(name, 1) for name in everybody})
    order = quick.order(2, "train", sums=other.sums)
    refused(quick, order, ReplyCode.FORGED_SUM, worked, field="sum")
    reply = ask(quick, quick.order(2, "train", deadline_s=61))
    assert report(reply).weights_sha256 == came_to(quick.plan, [honest[1]])


def test_a_site_that_is_left_out_of_a_sum_goes_on_with_the_others(quick):
    ask(quick, quick.order(1, "train"))
    quick.past().until(2)
    assert decode_sum(quick.past().sums[1]).groups[UPDATE].members == OTHERS
    assert UPDATE in ask(quick, quick.order(2, "train"))


# Sums that are missing.


def test_without_the_sum_that_is_due_a_site_is_behind_and_then_answers_the_same_round(
    trained, worked
):
    site, _, honest = trained
    named = sum_digest(honest)
    order = site.order(2, "train", sums={}, sum=named)
    refused(site, order, ReplyCode.BEHIND, worked, field="sums")
    reply = ask(site, site.order(2, "train", sums={1: honest}, sum=named))
    assert report(reply).weights_sha256 == came_to(site.plan, [honest])


def test_a_site_that_missed_rounds_says_so_until_every_sum_is_there(quick, worked):
    every = quick.past().until(4)
    newest = sum_digest(every[3])
    for there in ((), (3,), (1, 3), (2, 3), (1, 2)):
        sums = {number: every[number] for number in there}
        order = quick.order(4, "train", sums=sums, sum=newest)
        refused(quick, order, ReplyCode.BEHIND, worked, field="sums")
    reply = ask(quick, quick.order(4, "train", sums=every, sum=newest))
    assert report(reply).link == quick.past().links[3]
    assert report(reply).weights_sha256 == came_to(quick.plan, list(every.values()))


def test_of_sums_to_catch_up_with_one_that_is_forged_spoils_all(quick, worked):
    every = quick.past().until(4)
    for number in every:
        metadata, arrays = unpack(every[number])
        name = f"{UPDATE}/fc1.bias"
        bent = pack(metadata, arrays | {name: arrays[name] + 1})
        order = quick.order(4, "train", sums=every | {number: bent})
        refused(quick, order, ReplyCode.FORGED_SUM, worked)
    swapped = every | {1: every[2], 2: every[1]}
    refused(quick, quick.order(4, "train", sums=swapped), ReplyCode.FORGED_SUM, worked)
    assert report(ask(quick, quick.order(4, "train"))).link == quick.past().links[3]


def test_a_worker_that_starts_anew_for_every_round_needs_only_the_newest_sum(quick):
    sums = []
    for round_ in (1, 2, 3, 4):
        newest = {round_ - 1: sums[-1]} if sums else {}
        reply = ask(quick, quick.order(round_, "train", sums=newest))
        assert report(reply).weights_sha256 == came_to(quick.plan, sums)
        sums.append(told(quick, round_, reply))
    last = report(ask(quick, quick.order(5, "evaluate", sums={4: sums[-1]})))
    assert last.weights_sha256 == came_to(quick.plan, sums)
    assert last.link == quick.past().links[4]


def test_a_site_whose_state_was_wiped_is_behind_and_catches_up_from_the_first_round(quick, worked):
    for round_ in (1, 2):
        told(quick, round_, ask(quick, quick.order(round_, "train")))
    shutil.rmtree(quick.folder.worker / "state")
    every = quick.past().until(3)
    order = quick.order(3, "train", sums={2: every[2]})
    refused(quick, order, ReplyCode.BEHIND, worked)
    reply = ask(quick, quick.order(3, "train", sums=every))
    assert report(reply).link == quick.past().links[2]
    assert report(reply).weights_sha256 == came_to(quick.plan, list(every.values()))


def test_another_run_in_between_makes_a_site_catch_up(quick, worked):
    told(quick, 1, ask(quick, quick.order(1, "train")))
    ask(quick, quick.order(run="run-2"))
    every = quick.past().until(3)
    order = quick.order(3, "train", sums={2: every[2]})
    refused(quick, order, ReplyCode.BEHIND, worked)
    assert report(ask(quick, quick.order(3, "train"))).link == quick.past().links[2]


def test_a_chain_that_was_altered_on_the_disk_is_an_error_and_not_a_start(trained, worked):
    site, _, _ = trained
    path = site.folder.worker / "state" / RUN / FILE
    path.write_bytes(path.read_bytes()[:-1])
    refused(site, site.order(2, "train"), ReplyCode.INTERNAL, worked)
    shutil.rmtree(site.folder.worker / "state")
    assert UPDATE in ask(site, site.order(2, "train", deadline_s=61))


def test_weights_that_were_altered_in_the_chain_on_the_disk_end_with_the_next_rounds_sum(
    quick, worked
):
    """The site's own disk is its own: but what it says of its weights differs from the others."""
    ask(quick, quick.order(1, "train"))
    path = quick.folder.worker / "state" / RUN / FILE
    metadata, arrays = unpack(path.read_bytes())
    name = "weights/fc1.bias"
    path.write_bytes(pack(metadata, arrays | {name: arrays[name] + np.float32(1)}))
    reply = ask(quick, quick.order(2, "train"))
    assert report(reply).weights_sha256 != came_to(quick.plan, list(quick.past().until(2).values()))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_weights_follow_from_the_sums_by_the_plans_own_rule(make_site, momentum):
    site = make_site(kind="no-op", rounds={"training": 4, "server_momentum": momentum})
    sums = []
    for round_ in (1, 2, 3, 4):
        reply = ask(site, site.order(round_, "train"))
        assert report(reply).weights_sha256 == came_to(site.plan, sums)
        sums.append(told(site, round_, reply))
    assert report(ask(site, site.order(5, "evaluate"))).weights_sha256 == came_to(site.plan, sums)


@given(data=st.data())
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_site_that_missed_any_rounds_comes_to_the_bits_of_one_that_missed_none(
    make_site, tmp_path_factory, data
):
    missed = data.draw(st.sets(st.integers(1, 4)), "missed")
    wiped = data.draw(st.sets(st.integers(1, 5)), "wiped before")
    rounds = {"training": 4, "server_momentum": data.draw(st.sampled_from([0.0, 0.5, 0.9]))}
    folder = tmp_path_factory.mktemp("pair")
    north, south = (
        make_site(name, root=folder / name, kind="no-op", rounds=rounds)
        for name in ("north", "south")
    )
    roster = sorted([*south.roster, *north.roster[1:2]], key=lambda entry: entry.site)
    assert [entry.site for entry in roster] == ["east", "north", "south", "west"]
    past = Past(north.plan, RUN, roster, north.key)
    north.pasts[RUN, north.plan.fingerprint] = south.pasts[RUN, north.plan.fingerprint] = past
    known = 0  # the last round whose sum the southern site was shown
    for round_ in range(1, 6):
        phase = "train" if round_ < 5 else "evaluate"
        every = past.until(round_)
        newest = {n: d for n, d in every.items() if n == round_ - 1}
        straight = ask(north, north.order(round_, phase, sums=newest, roster=roster))
        sent = {"north": straight.values(), "east": past.training_records("east", round_)}
        if round_ not in missed:
            if round_ in wiped:
                shutil.rmtree(south.folder.worker / "state", ignore_errors=True)
                known = 0
            lacking = {n: d for n, d in every.items() if n > known}
            late = ask(south, south.order(round_, phase, sums=lacking, roster=roster))
            assert report(late).code is ReplyCode.OK
            assert report(late).weights_sha256 == report(straight).weights_sha256
            assert report(late).link == report(straight).link == past.links[round_ - 1]
            known, sent["south"] = round_ - 1, late.values()
        if phase == "train":
            past.add(sent)


# A run keeps its plan and its sites, and goes forwards.


def more_sites(roster):
    key = ledger_key_of("south").public.fingerprint
    return sorted([*roster, RosterEntry(site="south", ledger_key=key)], key=lambda e: e.site)


def fewer_sites(roster):
    return [entry for entry in roster if entry.site != "west"]


def another_key_for_west(roster):
    key = ledger_key_of("mallory").public.fingerprint
    return [e.model_copy(update={"ledger_key": key}) if e.site == "west" else e for e in roster]


def more_samples_for_west(roster):
    return [e.model_copy(update={"samples": 2000}) if e.site == "west" else e for e in roster]


@pytest.mark.parametrize(
    "change", [more_sites, fewer_sites, another_key_for_west, more_samples_for_west]
)
def test_another_roster_in_a_later_round_is_refused(quick, worked, change):
    ask(quick, quick.order(1, "train"))
    order = quick.order(2, "train", roster=change(quick.roster))
    refused(quick, order, ReplyCode.CHANGED_PLAN, worked, field="roster")
    assert UPDATE in ask(quick, quick.order(2, "train"))


@pytest.mark.parametrize("change", [more_sites, more_samples_for_west])
def test_a_site_that_forgot_the_roster_takes_no_sum_of_sites_that_had_another(
    quick, worked, change
):
    ask(quick, quick.order(1, "train"))
    shutil.rmtree(quick.folder.worker / "state")
    order = quick.order(2, "train", roster=change(quick.roster))
    refused(quick, order, ReplyCode.FORGED_SUM, worked)


def test_another_plan_in_a_run_is_refused(quick, worked):
    ask(quick, quick.order(1, "train"))
    other = quick.with_plan(kind="no-op", seed=6)
    for round_, phase in ((1, "train"), (2, "train"), (5, "evaluate"), (0, "begin")):
        order = quick.order(round_, phase, plan=other)
        refused(quick, order, ReplyCode.CHANGED_PLAN, worked, field="plan")
    assert UPDATE in ask(quick, quick.order(2, "train"))
    assert UPDATE in ask(quick, quick.order(1, "train", run="run-2", plan=other))


def test_another_plan_in_a_run_is_refused_though_the_first_was_not_answered(make_site, worked):
    """The ledger knows of no answer under the first plan; the chain knows the plan."""
    site = make_site()
    images = site.folder.data()
    away = images.rename(images.parent / "away")
    assert report(ask(site, site.order())).code is ReplyCode.BAD_DATA
    away.rename(images)
    other = site.with_plan(seed=6)
    refused(site, site.order(plan=other), ReplyCode.CHANGED_PLAN, worked, field="plan")
    assert report(ask(site, site.order(deadline_s=61))).code is ReplyCode.OK


def test_a_round_is_answered_once_and_none_before_it(quick, worked):
    told(quick, 1, ask(quick, quick.order(1, "train")))
    told(quick, 2, ask(quick, quick.order(2, "train")))
    for round_, phase in ((2, "train"), (1, "train"), (0, "begin")):
        order = quick.order(round_, phase, deadline_s=61)
        refused(quick, order, ReplyCode.BACKWARDS, worked, field="round")
    assert UPDATE in ask(quick, quick.order(3, "train"))


def test_a_round_that_others_were_asked_for_is_not_answered_after_a_later_one(quick, worked):
    every = quick.past().until(4)
    assert UPDATE in ask(quick, quick.order(4, "train"))
    order = quick.order(3, "train", sums={n: every[n] for n in (1, 2)})
    refused(quick, order, ReplyCode.BACKWARDS, worked)


def test_a_run_is_evaluated_once(quick, worked):
    first = quick.order(5, "evaluate")
    assert report(ask(quick, first)).code is ReplyCode.OK
    refused(quick, quick.order(5, "evaluate", deadline_s=61), ReplyCode.BACKWARDS, worked)
    size = len(ledger_of(quick))
    assert report(ask(quick, first)).code is ReplyCode.OK
    assert worked == []
    assert len(ledger_of(quick)) == size, "the same order gets the same answer"


def test_a_wiped_state_forgets_no_round(quick, worked):
    """What was answered stands in the ledger, and nowhere else."""
    ask(quick, quick.order(1, "train"))
    for folder in ("state", "answers"):
        shutil.rmtree(quick.folder.worker / folder)
    refused(quick, quick.order(1, "train", deadline_s=61), ReplyCode.BACKWARDS, worked)
    refused(quick, quick.order(), ReplyCode.BACKWARDS, worked)


def test_what_the_record_says_of_a_forged_sum_quotes_none_of_it(trained, worked):
    site, reply, honest = trained
    forged = altered(site, honest, reply)
    refusal = refused(site, site.order(2, "train", sums={1: forged}), ReplyCode.FORGED_SUM, worked)
    assert refusal.detail.field == UPDATE
    assert refusals(site) == [refusal]
    assert "sum" in refusal.detail.expected
    assert set(weight_shapes(site.plan)).isdisjoint(refusal.detail.expected.split())

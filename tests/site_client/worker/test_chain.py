"""A site goes on from sums that hold, in the run, round and history that it knows; from no other.

Each refusal has a number at the coordinator and a record at the site, trains nothing, and
spoils nothing: the honest sum of the same round is taken afterwards.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from common.model import weight_shapes
from common.sums.addition import decode_sum, sum_digest
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.orders import RosterEntry
from tests.aggregated import OTHERS, ledger_key_of
from tests.site_client.worker.asking import (
    UPDATE,
    after_round_1,
    ask,
    came_to,
    elsewhere,
    ledger_of,
    refusals,
    refused,
    report,
    told,
)
from tests.site_client.worker.forging import (
    FORGERIES,
    altered,
    doubled,
    fewer_than_named,
    next_rounds_renamed,
)

# Sums that do not hold.


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

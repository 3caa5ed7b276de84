"""A site that missed rounds, or forgot them, comes to the very weights of those that did not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.sums.addition import sum_digest
from common.wire.codes import ReplyCode
from common.wire.envelope import pack, unpack
from site_client.worker.chain_file import FILE
from tests.aggregated import Past
from tests.site_client.worker.asking import RUN, UPDATE, ask, came_to, refused, report, told


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

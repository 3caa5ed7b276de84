"""Rounds that end by time, that are saved within, and whose late updates count in the next."""

import threading
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import pytest

from common.errors import InputDataError
from common.plan import parse_plan
from common.policy import read_policy
from common.sums.fixed_point import from_fixed_point, to_fixed_point
from common.wire.bounds import SHARES_OF_A_ROUND
from common.wire.records import UNTAGGED
from site_client.worker import round_in_hand, studies
from site_client.worker.loop import Worker
from site_client.worker.round_in_hand import least_updates
from site_client.worker.state import SavedStates
from site_client.worker.study import Given
from tests.aggregated import OTHERS
from tests.conftest import loosen
from tests.site_client.worker.asking import SKETCH, UPDATE, ask, report, told


@pytest.fixture
def every_look_takes_a_second(monkeypatch):
    monkeypatch.setattr(studies, "Given", partial(Given, clock=count(0.0, 1.0).__next__))


def by_time(make_site, train_s, **more):
    """A site of rounds of 40 updates."""
    site = make_site(rounds={"training": 4, "train_s": train_s, **more})
    learner = site.plan.learner.model_dump(mode="json") | {"updates": 160}
    return replace(site, plan=parse_plan(site.plan.model_dump(mode="json") | {"learner": learner}))


def test_a_round_by_time_ends_with_the_updates_that_were_made(make_site, every_look_takes_a_second):
    site = by_time(make_site, 30.0)
    reply = ask(site, site.order(1, "train"))
    update = reply[UPDATE].record
    planned = site.plan.updates_in(1)
    assert least_updates(site.plan, read_policy(site.folder.policy_file)) < update.updates < planned
    assert update.samples == update.images * SHARES_OF_A_ROUND * update.updates // planned
    assert report(reply).updates == update.updates
    assert report(reply).train_ms >= 30_000


def test_without_a_time_a_round_has_the_plans_updates(make_site, every_look_takes_a_second):
    site = make_site(rounds={"training": 4})
    update = ask(site, site.order(1, "train"))[UPDATE].record
    assert (update.updates, update.samples) == (site.plan.updates_in(1), update.images)


def test_no_time_is_so_short_that_fewer_updates_leave_than_the_door_lets_out(
    make_site, every_look_takes_a_second
):
    """One gradient step would show what is in it: an aggregator may not ask for it by the clock."""
    site = by_time(make_site, 0.001)
    policy = read_policy(site.folder.policy_file)
    least = least_updates(site.plan, policy)
    assert ask(site, site.order(1, "train"))[UPDATE].record.updates == least
    stricter = policy.model_copy(
        update={"bounds": policy.bounds.model_copy(update={"updates": (35, 5000)})}
    )
    assert least < least_updates(site.plan, stricter) == 35


def test_a_time_that_ends_after_the_deadline_is_no_plan(make_site):
    with pytest.raises(InputDataError, match="below deadline_s"):
        by_time(make_site, 60.0, deadline_s=60.0)


def test_a_plan_that_uses_neither_keeps_its_fingerprint(make_site):
    plain = make_site().plan
    said = plain.model_dump(mode="json")
    said["rounds"] |= {"train_s": 0.0, "late_weight": 0.0}
    assert parse_plan(said).fingerprint == plain.fingerprint


# Saved within a round.


def stopped_at(site, update):
    """A worker that is told to stop after so many updates of a round; those it said it made."""
    stop, made = threading.Event(), []

    def progress(what, done, total):
        if what == "training":
            made.append(done)
            if done == update:
                stop.set()

    with Worker(site.folder, stop, progress) as worker:
        worker.turn()
    return made


@pytest.mark.parametrize("replay", ["uniform", "rare-first", "wrong-first", "prioritised"])
def test_a_round_goes_on_bit_for_bit_from_what_was_saved_within_it(
    make_site, tmp_path, monkeypatch, replay
):
    monkeypatch.setattr(round_in_hand, "SAVED_EVERY_S", 0.0)
    straight, cut = (make_site(root=tmp_path / name) for name in ("straight", "cut"))
    for site in (straight, cut):
        loosen(site.folder, allowed='["ModelUpdate", "SketchTable", "ErrorTables", "RoundReport"]')
    learner = straight.plan.learner.model_dump(mode="json") | {"replay": replay, "updates": 160}
    plan = straight.with_plan(learner=learner)
    for round_ in (1, 2):
        wanted = ask(straight, straight.order(round_, "train", plan=plan))
        digest = cut.put(cut.order(round_, "train", plan=plan))
        assert stopped_at(cut, 17)[-1] == 17
        assert stopped_at(cut, 31)[0] == 18, "nothing that was saved is done again"
        rest = stopped_at(cut, None)
        assert (rest[0], rest[-1]) == (32, plan.updates_in(round_))
        got = cut.reply(digest)
        tables = {None: (), "experience": (SKETCH,), "errors": ("ErrorTables",)}[plan.counts]
        kinds = (UPDATE, *tables)
        assert set(got) == {*kinds, "RoundReport"}
        for kind in kinds:
            # Tags hang on the roster, in which each of the two has a key of its own.
            untagged = {"tag": UNTAGGED}
            said = wanted[kind].record.model_copy(update=untagged)
            assert got[kind].record.model_copy(update=untagged) == said
            for name, array in wanted[kind].arrays.items():
                assert np.array_equal(got[kind].arrays[name], array)
        same = {"train_ms": 0, "link": None}
        assert report(got).model_copy(update=same) == report(wanted).model_copy(update=same)
        straight.past(plan).until(round_ + 1)
        cut.past(plan).until(round_ + 1)


def test_the_time_before_a_restart_counts(make_site, every_look_takes_a_second, monkeypatch):
    monkeypatch.setattr(round_in_hand, "SAVED_EVERY_S", 0.0)
    site = by_time(make_site, 60.0)
    digest = site.put(site.order(1, "train"))
    made = stopped_at(site, 15)
    rest = stopped_at(site, None)
    assert rest[0] == made[-1] + 1
    straight = by_time(partial(make_site, root=site.folder.root / "straight"), 60.0)
    whole = ask(straight, straight.order(1, "train"))[UPDATE].record.updates
    assert abs(site.reply(digest)[UPDATE].record.updates - whole) <= 2


def test_what_was_saved_is_of_one_round_of_one_history(tmp_path):
    states = SavedStates(tmp_path, "run-1", "a" * 64)
    states.save_within("b" * 64, {"x": np.arange(3)})
    assert states.load_within("b" * 64)["x"].tolist() == [0, 1, 2]
    assert states.load_within("c" * 64) is None
    assert replace(states, fingerprint="d" * 64).load_within("b" * 64) is None
    states.save(1, {"x": np.arange(3)})
    assert states.load_within("b" * 64) is None, "the round is over"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"{}" * 9]
)
def test_a_damaged_state_within_a_round_costs_the_round_and_nothing_else(tmp_path, damage):
    states = SavedStates(tmp_path, "run-1", "a" * 64)
    states.save_within("b" * 64, {"x": np.arange(3)})
    (path,) = states.folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert states.load_within("b" * 64) is None


# Late updates.


def two_rounds(site, *, counted):
    """The site's updates of two rounds; the first is in its round's sum, or came too late."""
    first = ask(site, site.order(1, "train"))
    past = site.past()
    if counted:
        told(site, 1, first)
    else:
        past.add({name: past.training_records(name, 1) for name in OTHERS})
    second = ask(site, site.order(2, "train"))
    return first[UPDATE].arrays, second[UPDATE].arrays


@pytest.mark.parametrize("counted", [True, False])
def test_an_update_that_came_too_late_goes_with_the_next_by_its_weight(
    make_site, tmp_path, counted
):
    with_it, without = (
        make_site(root=tmp_path / str(late), rounds={"training": 4, "late_weight": late})
        for late in (0.5, 0.0)
    )
    first, got = two_rounds(with_it, counted=counted)
    same, plain = two_rounds(without, counted=counted)
    assert all(np.array_equal(first[name], same[name]) for name in first)
    late = from_fixed_point(first)
    for name, array in from_fixed_point(plain).items():
        wanted = array if counted else array + np.float32(0.5) * late[name]
        # Rounded once where the other is rounded twice.
        assert np.abs(got[name] - to_fixed_point({name: wanted})[name]).max() <= 1
    if not counted:
        assert any(not np.array_equal(got[name], plain[name]) for name in got)

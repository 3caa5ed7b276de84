"""The fold from journal to state, and what is derived from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.report.html import write_report
from aggregator.report.run import mean_mm, prior_mm
from aggregator.report.state import RunState, fold
from aggregator.rounds.events import (
    RelayFailed,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    SiteLate,
    SiteRejected,
    SiteReplied,
    SitesAwaited,
)
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.records import PARTS, TaskError

TIMES = st.integers(0, 10_000).map(
    lambda s: datetime(2025, 3, 4, tzinfo=UTC) + timedelta(seconds=s)
)
NAMES = st.sampled_from(["site-a", "site-b", "site-c"])
ROUNDS = st.integers(0, 4)
PHASES = st.sampled_from(["begin", "train", "evaluate"])
COUNTS = st.integers(0, 10_000)
SITES = st.lists(NAMES, unique=True).map(tuple)
ERRORS = st.lists(
    st.builds(
        TaskError,
        label=st.sampled_from(["AC", "PC"]),
        part=st.sampled_from(PARTS),
        searches=st.integers(0, 100),
        mean_milli=COUNTS,
        median_milli=COUNTS,
        consensus_milli=COUNTS,
        prior_milli=COUNTS,
        over_10mm=COUNTS,
    ),
    max_size=3,
).map(tuple)
EVENTS = st.one_of(
    st.builds(
        RunStarted,
        ts=TIMES,
        run=st.sampled_from(["one", "two"]),
        federation=st.just("f"),
        plan_name=st.just("p"),
        plan_fingerprint=st.just("00"),
        rounds=st.integers(1, 4),
        quorum=st.just(1),
        sites=SITES,
    ),
    st.builds(RoundStarted, ts=TIMES, round=ROUNDS, phase=PHASES, order_bytes=COUNTS, sites=SITES),
    st.builds(
        SiteReplied,
        ts=TIMES,
        round=ROUNDS,
        site=NAMES,
        code=st.sampled_from(ReplyCode),
        accepted=st.booleans(),
        bytes=COUNTS,
        records=st.dictionaries(st.sampled_from(["RoundReport", "ModelUpdate"]), COUNTS),
        seconds=st.floats(0, 100),
        errors=ERRORS,
    ),
    st.builds(SiteRejected, ts=TIMES, round=ROUNDS, site=NAMES, reason=st.text(max_size=5)),
    st.builds(SiteLate, ts=TIMES, round=ROUNDS, site=NAMES),
    st.builds(
        RoundFinished,
        ts=TIMES,
        round=ROUNDS,
        phase=PHASES,
        sites=SITES,
        model_sha256=st.just("cd" * 32),
        seconds=st.floats(0, 100),
    ),
    st.builds(
        RunFinished,
        ts=TIMES,
        verdict=st.sampled_from(["COMPLETED", "DEGRADED", "FAILED"]),
        rounds=COUNTS,
    ),
)
JOURNALS = st.lists(EVENTS, max_size=25)


@given(JOURNALS, JOURNALS)
def test_folding_a_prefix_and_then_the_rest_equals_folding_all(before, after):
    assert fold(after, fold(before)) == fold([*before, *after])


@given(JOURNALS)
def test_folding_nothing_changes_nothing(events):
    assert fold([], fold(events)) == fold(events)
    assert fold([]) == RunState()


@given(JOURNALS)
def test_every_byte_that_arrived_is_counted_once_whatever_the_order_of_events(events):
    events = [e for e in events if not isinstance(e, RunStarted)]
    state = fold(events)
    arrived = sum(e.bytes for e in events if isinstance(e, SiteReplied))
    assert sum(state.site(name).bytes_out for name in state.sites) == arrived
    by_type = sum(sum(e.records.values()) for e in events if isinstance(e, SiteReplied))
    assert sum(n for r in state.rounds for s in r.sites for _, n in s.records) == by_type


@given(JOURNALS)
def test_every_site_of_any_round_is_known_and_has_a_state(events):
    state = fold(events)
    assert {s.site for r in state.rounds for s in r.sites} <= set(state.sites)
    for name in state.sites:
        assert state.site(name).bytes_out >= 0
        if state.verdict:
            assert state.site(name).status != "training"


@given(ERRORS, st.sampled_from(PARTS))
def test_the_mean_error_of_a_part_is_weighted_by_searches_and_knows_no_other_part(errors, part):
    searched = [e for e in errors if e.searches and e.part == part]
    mean = mean_mm(errors, part)
    if not searched:
        assert mean is None
        assert prior_mm(errors, part) is None
    else:
        one_by_one = [e.mean_milli for e in searched for _ in range(e.searches)]
        assert mean == pytest.approx(sum(one_by_one) / len(one_by_one) / 1000)


def test_the_phase_follows_the_journal_from_waiting_to_finished(complete):
    seen = []
    for n in range(len(complete) + 1):
        state = fold(complete[:n])
        step = (state.phase, state.round)
        if not seen or seen[-1] != step:
            seen.append(step)
    assert seen == [
        ("waiting", 0),
        ("begin", 0),
        ("train", 1),
        ("train", 2),
        ("train", 3),
        ("evaluate", 3),
        ("finished", 3),
    ]


def test_a_run_that_waits_for_approval_says_so_until_the_wait_is_over(complete):
    began = next(n for n, e in enumerate(complete) if isinstance(e, RoundStarted)) + 1
    held = [*complete[:began], SitesAwaited(what="approval", sites=("site-b", "site-c"))]
    state = fold(held)
    assert state.waiting.says == "waiting for people to approve the plan: site-b, site-c"
    assert state.site("site-b").detail.startswith("a person there has to approve the plan")
    fewer = fold([*held, SitesAwaited(what="approval", sites=("site-c",))])
    assert fewer.waiting.sites == ("site-c",)
    over = fold([*held, SitesAwaited(what="approval", sites=())])
    assert over.waiting is None
    assert fold([*held, complete[-1]]).waiting is None


def test_a_run_that_waits_for_nobody_in_particular_to_be_online_still_waits(complete):
    assert fold([complete[0], SitesAwaited(what="online", sites=())]).waiting is not None


def test_errors_belong_to_the_weights_that_the_round_started_from(complete):
    state = fold(complete)
    rounds, errors = zip(*state.curve("training", "site-a"), strict=True)
    assert rounds == (0, 1, 2, 3)
    assert errors[0] == pytest.approx(40.0)
    assert errors[-1] == pytest.approx(2 + 38 * 2.718281828**-3, abs=1e-3)
    assert state.curve("training")[0][1] == pytest.approx(40.1)  # sites at 40.0, 40.1 and 40.2


def test_expected_end_is_the_median_round_times_the_rounds_left(complete):
    second = next(n for n, e in enumerate(complete) if isinstance(e, RoundStarted) and e.round == 2)
    assert fold(complete[:second]).expected_end == complete[second].ts + timedelta(seconds=70)
    state = fold(complete[: second + 1])  # rounds 2 and 3 to come, 35 s each
    assert state.expected_end == complete[second].ts + timedelta(seconds=70)
    assert fold(complete[: second - 1]).expected_end is None  # none has finished yet
    assert fold(complete).expected_end is None


def test_one_late_round_does_not_move_the_expected_end_by_its_length(degraded):
    third = next(n for n, e in enumerate(degraded) if isinstance(e, RoundStarted) and e.round == 3)
    state = fold(degraded[: third + 1])  # 35 s and 60 s behind, one round to come
    assert state.expected_end == degraded[third].ts + timedelta(seconds=47.5)


def test_each_sites_state_says_what_became_of_the_order(failed):
    sites = {name: fold(failed).site(name) for name in ("site-a", "site-b", "site-c")}
    assert [s.status for s in sites.values()] == ["failed", "late", "sent"]
    assert sites["site-a"].detail == EXPLANATIONS[ReplyCode.BAD_DATA]
    assert sites["site-c"].bytes_out == 900 + 2 * 1_000_900


def test_a_site_is_training_until_it_answers_and_waiting_when_not_asked(complete):
    first_train = next(n for n, e in enumerate(complete) if getattr(e, "phase", "") == "train")
    state = fold(complete[: first_train + 1])
    assert state.site("site-a").status == "training"
    assert fold(complete[: first_train + 2]).site("site-a").status == "sent"
    partly = complete[first_train].model_copy(update={"sites": ("site-a", "site-b")})
    assert fold([*complete[:first_train], partly]).site("site-c").status == "waiting"


def test_rejections_and_absences_are_told_with_their_reasons(degraded):
    told = [(i.round, i.site, i.kind, i.why) for i in fold(degraded).incidents]
    assert told == [
        (2, "site-b", "late", "absent, or no answer by the deadline"),
        (3, "site-c", "rejected", "the signature does not hold"),
    ]


def test_an_answer_after_the_deadline_is_counted_and_the_site_stays_late(degraded, complete):
    late = next(n for n, e in enumerate(degraded) if isinstance(e, SiteLate))
    answer = next(
        e for e in complete if isinstance(e, SiteReplied) and (e.round, e.site) == (2, "site-b")
    )
    after = [*degraded[: late + 1], answer.model_copy(update={"accepted": False})]
    before, state = fold(degraded[: late + 1]), fold(after)
    assert state.site("site-b").status == "late"
    assert state.site("site-b").bytes_out == before.site("site-b").bytes_out + answer.bytes


def test_a_round_that_starts_again_keeps_the_bytes_that_left(complete):
    first_train = next(n for n, e in enumerate(complete) if getattr(e, "phase", "") == "train")
    state = fold([*complete[: first_train + 2], complete[0], complete[first_train]])
    assert state.current.attempts == 2
    assert state.site("site-a").status == "training"
    assert state.site("site-a").bytes_out == 900 + 1_000_900
    assert state.started_at == complete[0].ts


def test_the_digest_shown_is_the_newest_one(complete):
    assert fold(complete[:-1]).model_sha256 == "4" * 64
    assert fold(complete).model_sha256 == "ab" * 32
    assert fold(complete[:3]).model_sha256 == ""


def test_a_resumed_run_keeps_its_rounds_its_incidents_and_its_time(resumed):
    state = fold(resumed)
    assert [r.round for r in state.rounds] == [0, 1, 2, 3, 4]
    assert state.trained == 3
    assert [(i.round, i.site, i.kind) for i in state.incidents] == [
        (2, "site-a", "failed"),
        (2, "site-b", "late"),
    ]
    assert state.elapsed_s == 105 + 80  # the hour between is nobody's work
    assert state.site("site-b").curve[-1][0] == 3


def test_what_a_rejected_site_told_of_its_errors_counts_for_nothing(complete):
    first_train = next(n for n, e in enumerate(complete) if getattr(e, "phase", "") == "train")
    events = complete[: first_train + 3]  # site-a and site-b answered, 40.0 and 40.1 mm
    rejected = SiteRejected(ts=events[-1].ts, round=1, site="site-a", reason="outlier")
    state = fold([*events, rejected])
    assert state.curve("training") == ((0, pytest.approx(40.1)),)
    assert state.site("site-a").bytes_out == fold(events).site("site-a").bytes_out


def test_a_site_that_its_relay_cost_the_round_is_told_by_the_relays_failure(complete):
    first_train = next(n for n, e in enumerate(complete) if getattr(e, "phase", "") == "train")
    began, at = complete[: first_train + 1], complete[first_train].ts
    failed = RelayFailed(ts=at, round=1, relay="east", reason="no sum", sites=("site-a", "site-b"))
    late = [SiteLate(ts=at, round=1, site=site) for site in ("site-a", "site-b")]
    state = fold([*began, failed, *late])
    assert [(i.site, i.why) for i in state.incidents] == [
        ("site-a", "relay east: no sum"),
        ("site-b", "relay east: no sum"),
    ]
    answer = complete[first_train + 1].model_copy(update={"relay": "east"})
    assert answer.site == "site-a"
    assert fold([*began, answer, failed]).site("site-a").status == "sent"
    told = {i.site: i.why for i in fold([*began, answer, failed, *late]).incidents}
    assert told == {
        "site-a": "relay east could not add what it sent",
        "site-b": "relay east: no sum",
    }


def test_the_page_says_whose_answers_came_by_which_relay(complete, tmp_path):
    by = {"site-a": "east", "site-b": "west", "site-c": "east"}
    events = [
        e.model_copy(update={"relay": by[e.site]}) if isinstance(e, SiteReplied) else e
        for e in complete
    ]
    write_report(tmp_path / "by.html", fold(events))
    write_report(tmp_path / "plain.html", fold(complete))
    said = " ".join((tmp_path / "by.html").read_text().split())
    assert "site-a, site-c answered by relay east; site-b answered by relay west." in said
    assert "answered by relay" not in (tmp_path / "plain.html").read_text()

"""A run waits until people at the sites have approved its plan, and says for whom it waits."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from aggregator.report.html import write_report
from aggregator.report.live import plain_line, status_json, status_table
from aggregator.report.state import fold
from aggregator.rounds.events import RoundFinished, SiteReplied, SitesAwaited
from common.ledger.records import parse_record
from common.plan import parse_plan
from common.wire.codes import ReplyCode
from site_client.decisions.making import Decision, decide

SITES = ("site-a", "site-b", "site-c")
DAY_S = 86_400.0


def say(federation, event: str, plan, *names: str) -> None:
    """A person at each of these sites decides about a plan."""
    for name in names:
        made = Decision.made(event=event, person="Ada", plan_fingerprint=plan.fingerprint)
        decide(federation.sites[name], [made])


def awaited(federation, store) -> list[tuple[str, ...]]:
    """For whose approval the run waited, as it changed."""
    found = [e for e in federation.events(store) if isinstance(e, SitesAwaited)]
    assert {event.what for event in found} <= {"approval"}
    return [event.sites for event in found]


def records(site) -> list[tuple[str, int | None]]:
    """Event and code of every record of a site's ledger."""
    lines = (site.ledger / "log.jsonl").read_bytes().splitlines()
    found = [parse_record(line, "record") for line in lines]
    return [(record.event, record.code) for record in found]


@pytest.fixture
def acquainted(strict):
    strict.acquaint()
    return strict


def test_a_run_waits_says_for_whom_and_completes_once_all_have_approved(
    acquainted, no_op_plan, time
):
    store = acquainted.create_run(no_op_plan, min_sites=3, approval_s=3 * DAY_S)
    time.at = [
        (20.0, lambda: say(acquainted, "APPROVE", no_op_plan, "site-b")),
        (60.0, lambda: say(acquainted, "APPROVE", no_op_plan, "site-a", "site-c")),
    ]
    finished = acquainted.conduct(store, acquainted.transport(), time)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert awaited(acquainted, store) == [SITES, ("site-a", "site-c"), ()]
    assert 60.0 <= time.now < 70.0, "asked again soon"
    told = [e for e in acquainted.events(store) if isinstance(e, SiteReplied)]
    assert {e.code for e in told} == {ReplyCode.OK}
    assert len(told) == 4 * 3


def test_a_long_wait_costs_one_record_in_the_ledger_and_not_one_for_each_time_it_was_asked(
    acquainted, no_op_plan, time
):
    store, transport = acquainted.create_run(no_op_plan, approval_s=DAY_S), acquainted.transport()
    time.at = [(60.0, lambda: say(acquainted, "APPROVE", no_op_plan, *SITES))]
    assert acquainted.conduct(store, transport, time).verdict == "COMPLETED"
    assert len(transport.sent[100]) > 20, "it was asked often"
    found = records(acquainted.sites["site-a"])
    waiting = int(ReplyCode.PLAN_WAITS)
    assert found.count(("REFUSE", waiting)) == 1
    assert found.count(("SEND", waiting)) == 1


def test_a_person_approves_by_a_thread_of_their_own_while_the_run_waits(acquainted, no_op_plan):
    """Nothing is arranged here: the run sleeps, and the ledger's lock is where they meet."""
    acquainted.acquaint("site-a", "site-b", plan=no_op_plan)
    store = acquainted.create_run(no_op_plan, min_sites=3, approval_s=60.0)
    waits = threading.Event()
    transport = acquainted.transport()
    honest = transport.receive

    def receive():
        arrivals = honest()
        if awaited(acquainted, store):
            waits.set()
        return arrivals

    def approve() -> None:
        waits.wait(30)
        say(acquainted, "APPROVE", no_op_plan, "site-c")

    transport.receive = receive
    person = threading.Thread(target=approve)
    person.start()
    from aggregator.rounds.conduct import Conductor

    finished = Conductor(acquainted.folder, store, transport, acquainted.turn()).run()
    person.join()
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert awaited(acquainted, store) == [("site-c",), ()]


def test_when_time_is_up_the_run_goes_on_without_those_who_did_not_decide(
    acquainted, no_op_plan, time
):
    say(acquainted, "APPROVE", no_op_plan, "site-a", "site-b")
    store = acquainted.create_run(no_op_plan, min_sites=3, approval_s=60.0)
    finished = acquainted.conduct(store, acquainted.transport(), time)
    assert finished.verdict == "DEGRADED"
    assert finished.reason.startswith("site-c the plan waits for a person there")
    assert 60.0 <= time.now < 70.0
    last = [e for e in acquainted.events(store) if isinstance(e, RoundFinished)][-1]
    assert last.sites == ("site-a", "site-b")


def test_a_person_who_decides_late_lets_the_site_in_at_the_next_round(acquainted, no_op_plan):
    say(acquainted, "APPROVE", no_op_plan, "site-a", "site-b")
    store, transport = acquainted.create_run(no_op_plan, min_sites=3), acquainted.transport()
    honest = transport.send

    def send(parcels, deadline_s):
        honest(parcels, deadline_s)
        if len(transport.sent[100]) == 2:  # round 1 is over
            say(acquainted, "APPROVE", no_op_plan, "site-c")

    transport.send = send
    finished = acquainted.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    rounds = [e.sites for e in acquainted.events(store) if isinstance(e, RoundFinished)]
    assert rounds == [("site-a", "site-b"), ("site-a", "site-b"), SITES, SITES]


def test_a_site_that_declined_is_named_and_the_others_go_on(acquainted, no_op_plan, time):
    say(acquainted, "APPROVE", no_op_plan, "site-a", "site-b")
    store = acquainted.create_run(no_op_plan, min_sites=3, approval_s=DAY_S)
    time.at = [(10.0, lambda: say(acquainted, "DECLINE", no_op_plan, "site-c"))]
    finished = acquainted.conduct(store, acquainted.transport(), time)
    assert finished.verdict == "DEGRADED"
    assert finished.reason.startswith("site-c a person at the site has declined the plan")
    assert awaited(acquainted, store) == [("site-c",), ()]
    assert time.now < 60.0, "who has declined is not waited for"


def test_a_run_without_its_quorum_fails_and_says_who_declined(acquainted, no_op_plan, time):
    asked = no_op_plan.model_dump(mode="json")
    plan = parse_plan(asked | {"rounds": asked["rounds"] | {"quorum": 3}})
    say(acquainted, "APPROVE", plan, "site-a", "site-b")
    say(acquainted, "DECLINE", plan, "site-c")
    store = acquainted.create_run(plan, min_sites=3, approval_s=DAY_S)
    finished = acquainted.conduct(store, acquainted.transport(), time)
    assert (finished.verdict, finished.exit_code) == ("FAILED", 5)
    assert "got 2; site-c a person at the site has declined the plan" in finished.reason


def test_a_plan_declined_in_mid_run_is_served_no_more_and_the_others_go_on(acquainted, no_op_plan):
    acquainted.acquaint(plan=no_op_plan)
    store, transport = acquainted.create_run(no_op_plan, min_sites=3), acquainted.transport()
    honest = transport.send

    def send(parcels, deadline_s):
        if len(transport.sent[100]) == 2:  # rounds 0 and 1 are over
            say(acquainted, "DECLINE", no_op_plan, "site-b")
        honest(parcels, deadline_s)

    transport.send = send
    finished = acquainted.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert finished.reason == "site-b a person at the site has declined the plan (rounds 2-3)"


def test_an_approval_holds_for_the_next_run_of_the_same_plan_and_for_no_other(
    acquainted, no_op_plan
):
    acquainted.acquaint(plan=no_op_plan)
    for run in ("run-1", "run-2"):
        store = acquainted.create_run(no_op_plan, run, min_sites=3)
        assert acquainted.conduct(store, acquainted.transport()).verdict == "COMPLETED"
    other = parse_plan(no_op_plan.model_dump(mode="json") | {"seed": 4})
    store = acquainted.create_run(other, "run-3", min_sites=3)
    finished = acquainted.conduct(store, acquainted.transport())
    assert finished.verdict == "FAILED"
    assert finished.reason.count("the plan waits for a person there: `cairn-site plans`") == 3


def test_a_run_that_was_interrupted_while_it_waited_waits_again(acquainted, no_op_plan, time):
    store = acquainted.create_run(no_op_plan, min_sites=3, approval_s=DAY_S)

    def end() -> None:
        raise KeyboardInterrupt

    time.at = [(20.0, end)]
    with pytest.raises(KeyboardInterrupt):
        acquainted.conduct(store, acquainted.transport(), time)
    time.at = [(time.now + 20.0, lambda: say(acquainted, "APPROVE", no_op_plan, *SITES))]
    finished = acquainted.conduct(store, acquainted.transport(), time)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert awaited(acquainted, store) == [SITES, SITES, ()]


def test_watch_status_and_report_say_whose_approval_a_run_waits_for(
    acquainted, no_op_plan, time, tmp_path
):
    say(acquainted, "APPROVE", no_op_plan, "site-a", "site-b")
    store = acquainted.create_run(no_op_plan, min_sites=3, approval_s=DAY_S)
    time.at = [(10.0, lambda: say(acquainted, "APPROVE", no_op_plan, "site-c"))]
    acquainted.conduct(store, acquainted.transport(), time)
    events = acquainted.events(store)
    at = next(n for n, e in enumerate(events) if isinstance(e, SitesAwaited))
    assert plain_line(events[at]).endswith("sites_awaited what=approval sites=site-c")
    state = fold(events[: at + 1])
    assert state.waiting.says == "waiting for people to approve the plan: site-c"
    assert status_json(state)["waiting_for"] == {"what": "approval", "sites": ["site-c"]}
    shown = Console(width=120, file=io.StringIO())
    shown.print(status_table(state))
    assert "waiting for people to approve the plan: site-c" in shown.file.getvalue()
    assert state.site("site-c").detail == "a person there has to approve the plan: cairn-site plans"
    write_report(tmp_path / "report.html", state)
    assert "people to approve the plan: site-c" in (tmp_path / "report.html").read_text()
    over = next(n for n, e in enumerate(events) if isinstance(e, SitesAwaited) and not e.sites)
    assert status_json(fold(events[: over + 1]))["waiting_for"] is None
    whole = fold(events)
    assert whole.site("site-c").detail == ""

"""Runs that are started in a row over real Flower, and one that is stopped under way."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.flower, pytest.mark.timeout(900)]
OPEN = ("--dir", "federation")


def start(real, plan: str) -> str:
    told = real.run(
        *("cairn-aggregator", "round", "start", plan, *OPEN, "--min-sites", "3", "--json")
    )
    return json.loads(told)["run"]


def ends(real, run: str) -> list[dict[str, object]]:
    events = real.events(real.root / "federation" / "runs" / run)
    return [event for event in events if event["event"] == "run_finished"]


def listed(real) -> dict[str, dict[str, object]]:
    told = json.loads(real.run("cairn-aggregator", "round", "list", *OPEN, "--json"))
    return {run["name"]: run for run in told["runs"]}


@pytest.mark.slow
def test_three_runs_started_in_a_row_complete_one_after_the_other(real):
    plan = real.write_plan(rounds=1, deadline=60)
    runs = [start(real, plan) for _ in range(3)]
    states = listed(real)
    assert [states[run]["state"] for run in runs[1:]] == ["queued", "queued"]
    real.wait(lambda: all(ends(real, run) for run in runs), "end of three runs", 400)
    for run in runs:
        assert [end["verdict"] for end in ends(real, run)] == ["COMPLETED"], ends(real, run)
        events = real.events(real.root / "federation" / "runs" / run)
        assert not [event for event in events if event["event"] == "site_rejected"]
    begun = [states_of["started_at"] for states_of in map(listed(real).get, runs)]
    assert begun == sorted(begun)


@pytest.mark.slow
def test_a_run_that_is_stopped_makes_room_for_the_one_behind_it(real):
    first = start(real, real.write_plan(rounds=200, deadline=60))
    real.wait(
        lambda: any(
            event["event"] == "round_finished"
            for event in real.events(real.root / "federation" / "runs" / first)
        ),
        "round of the first run",
        200,
    )
    second = start(real, real.write_plan(rounds=1, deadline=60))
    told = real.run("cairn-aggregator", "round", "stop", first, *OPEN, "--wait", "90")
    assert "STOPPED, stopped by a coordinator at the aggregator" in told
    assert "recorded at site-a, site-b, site-c" in told
    real.wait(lambda: bool(ends(real, second)), "end of the second run", 300)
    assert ends(real, second)[0]["verdict"] == "COMPLETED"
    assert "is over" in real.run(*("cairn-aggregator", "round", "stop", first, *OPEN), code=3)

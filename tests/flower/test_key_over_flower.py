"""The last site joins, and the run starts, while the federation key is on its way to it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytestmark = [pytest.mark.flower, pytest.mark.timeout(900)]

LIMIT_S = 300.0


@pytest.fixture
def first(real_class, tmp_path) -> Iterator[object]:
    """An aggregator, and a site that has made the federation's key, both running."""
    made = real_class(tmp_path)
    try:
        made.init()
        made.start_aggregator(LIMIT_S)
        assert "The federation key is here: id" in made.join("site-a")
        made.start_site("site-a")
        made.wait_for("site-a-courier", "online", LIMIT_S)
        made.wait_for("site-a-worker", "is ready", LIMIT_S)
        yield made
    finally:
        made.stop()


@pytest.mark.slow
def test_a_run_waits_for_the_key_of_the_last_site_says_so_and_leaves_nobody_out(first):
    # Nobody seals the key to a newcomer before the holder's staff have confirmed it.
    assert "site-a to be confirmed: cairn-site peers confirm site-a" in first.join("site-b")
    first.confirm("site-b", "site-a")
    for site in ("site-a", "site-b"):
        first.allow(site, least_known="1", approval='"bounded"')
    first.start_site("site-b")
    plan = first.write_plan(rounds=1, deadline=300)
    first.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "2", "--wait", str(LIMIT_S)),
    )
    run = first.newest_run()

    def awaited() -> list[tuple[object, object]]:
        found = [e for e in first.events(run) if e["event"] == "sites_awaited"]
        return [(event["what"], event["sites"]) for event in found]

    first.wait(lambda: ("federation_key", ["site-b"]) in awaited(), "waiting", LIMIT_S)
    status = json.loads(first.run("cairn-aggregator", "status", "--json", "--dir", "federation"))
    assert status["waiting_for"] == {"what": "federation_key", "sites": ["site-b"]}
    assert "round_started" not in {event["event"] for event in first.events(run)}

    first.confirm("site-a", "site-b")
    first.wait(lambda: first.events(run)[-1]["event"] == "run_finished", "end of the run", LIMIT_S)
    events = first.events(run)
    assert (events[-1]["verdict"], events[-1]["reason"]) == ("COMPLETED", "")
    replies = [event for event in events if event["event"] == "site_replied"]
    assert [event["code"] for event in replies] == [0] * 6, "nobody was left out of a round"

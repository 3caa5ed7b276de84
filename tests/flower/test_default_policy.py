"""Three sites under the policy that ``join`` writes: people confirm, people approve, by command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from site_client.egress.policy import default_policy_text
from tests.programs import SITES

pytestmark = [pytest.mark.flower, pytest.mark.timeout(900)]

LIMIT_S = 300.0


@pytest.fixture(scope="module")
def hospitals(real) -> Iterator[object]:
    """Three sites that run and know each other; nobody has approved what they are asked here."""
    for site in SITES:
        real.allow(site, approval='"each"')
        policy = real.root / site / "policy.toml"
        assert policy.read_text(encoding="utf-8") == default_policy_text(), "as join wrote it"
    yield real
    for site in SITES:
        real.allow(site, approval='"bounded"')


def chain_of(root: Path, site: str, run: str) -> bytes:
    return (root / site / "worker" / "state" / run / "chain.safetensors").read_bytes()


@pytest.mark.slow
def test_three_sites_that_confirmed_and_approved_by_command_complete_a_run(hospitals):
    plan = hospitals.write_plan(rounds=1, deadline=121, quorum=3)
    hospitals.approve(plan, *SITES)
    said = hospitals.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
        timeout=LIMIT_S,
    )
    assert re.search(r"run_finished verdict=COMPLETED", said), said
    assert "sites_awaited what=approval" not in said
    run = hospitals.newest_run()
    state = json.loads((run / "rounds" / "0001" / "round.json").read_text())
    for site in SITES:
        assert state["link"].encode() in chain_of(hospitals.root, site, run.name)
        shown = hospitals.run("cairn-audit", "show", f"{site}/worker/ledger")
        assert shown.count("Ada Lovelace") >= 3, "two sites confirmed, one plan approved"
        verdict = hospitals.run(
            *("cairn-audit", "verify", f"{site}/worker/ledger"),
            *("--key", f"federation/sites/{site}/ledger.pub"),
            *("--checkpoint", f"federation/sites/{site}/checkpoint.note"),
            *("--witness", "federation/pki/witness.pub"),
            *("--journal", f"{site}/courier/journal.jsonl"),
            *("--courier-key", f"federation/sites/{site}/request.json"),
        )
        assert "chain intact" in verdict
        assert "0.0 % of the wire unexplained" in verdict


@pytest.mark.slow
def test_a_run_held_for_approval_completes_once_the_last_person_has_typed_it(hospitals):
    plan = hospitals.write_plan(rounds=1, deadline=122, quorum=3)
    hospitals.approve(plan, "site-a", "site-b")
    hospitals.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "3", "--approval-wait", str(LIMIT_S)),
    )
    run = hospitals.newest_run()

    def awaited() -> list[tuple[object, object]]:
        found = [e for e in hospitals.events(run) if e["event"] == "sites_awaited"]
        return [(event["what"], event["sites"]) for event in found]

    hospitals.wait(lambda: ("approval", ["site-c"]) in awaited(), "waiting", LIMIT_S)
    status = json.loads(
        hospitals.run("cairn-aggregator", "status", "--json", "--dir", "federation")
    )
    assert status["waiting_for"] == {"what": "approval", "sites": ["site-c"]}
    waiting = json.loads(hospitals.run("cairn-site", "plans", "--json", "--site-dir", "site-c"))
    assert waiting["waiting"] == 1
    [plan_waits] = [each for each in waiting["plans"] if each["state"] == "waiting"]
    assert plan_waits["run"] == run.name

    hospitals.approve(plan_waits["fingerprint"][:12], "site-c")
    finished = lambda: hospitals.events(run)[-1]["event"] == "run_finished"  # noqa: E731
    hospitals.wait(finished, "end of the run", LIMIT_S)
    events = hospitals.events(run)
    assert (events[-1]["verdict"], events[-1]["reason"]) == ("COMPLETED", "")
    assert awaited() == [("approval", ["site-c"]), ("approval", [])]


@pytest.mark.slow
def test_a_plan_that_one_site_refused_is_run_by_the_others_and_the_site_is_named(hospitals):
    plan = hospitals.write_plan(rounds=1, deadline=120, quorum=2)
    hospitals.approve(plan, "site-a", "site-b")
    hospitals.run(
        *("cairn-site", "plans", "refuse", plan, "--by", "Grace Hopper", "--site-dir", "site-c")
    )
    said = hospitals.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
        timeout=LIMIT_S,
    )
    assert re.search(r"run_finished verdict=DEGRADED", said), said
    assert "site-c a person at the site has declined the plan" in said

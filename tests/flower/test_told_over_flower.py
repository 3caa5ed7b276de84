"""Rounds that are told over real Flower; who cannot be told asks, and misses no round."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from common.journal.entries import Settle
from common.journal.reader import read_journal

pytestmark = [pytest.mark.flower, pytest.mark.timeout(900)]

LIMIT_S = 300.0
SITES = ("site-a", "site-b", "site-c")
DEAF = "site-c"


@pytest.fixture(scope="module")
def told(real_class, tmp_path_factory) -> Iterator[object]:
    """Three sites that joined by token; the desk's address at the third leads nowhere."""
    made = real_class(tmp_path_factory.mktemp("told"))
    try:
        made.init()
        made.start_aggregator(LIMIT_S)
        made.join(SITES[0], "--new-federation-key")
        for site in SITES[1:]:
            made.join(site)
        made.acquaint(*SITES)
        for site in SITES:
            made.allow(site, approval='"bounded"')
            made.start_site(site)
        for site in SITES:
            made.wait_for(f"{site}-courier", "online", LIMIT_S)
        keys = made.root / DEAF / "worker" / "keys"
        made.wait(lambda: any(keys.glob("*.key")), "federation key", LIMIT_S)
        settings = made.root / DEAF / "site.toml"
        text = re.sub(r'(?m)^enrolment = ".*"$', 'enrolment = "127.0.0.1:9"', settings.read_text())
        settings.write_text(text)
        courier = made.processes[f"{DEAF}-courier"]
        courier.terminate()
        courier.wait(30)
        made.heard_before = used(made, DEAF).get("AwaitOrders", 0)
        made.start(f"{DEAF}-courier", "cairn-site", "courier", "--site-dir", DEAF)
        made.wait(lambda: made.log(f"{DEAF}-courier").count("online") == 2, "return", LIMIT_S)
        yield made
    finally:
        made.stop()


def used(made, site: str) -> dict[str, int]:
    """Requests of a site's journal, by kind."""
    counts: dict[str, int] = {}
    for entry in read_journal(made.root / site / "courier" / "journal.jsonl").entries:
        if isinstance(entry, Settle):
            for use in entry.used:
                counts[use.kind] = counts.get(use.kind, 0) + use.count
    return counts


def test_a_run_completes_at_sites_that_are_told_and_at_one_that_cannot_be(told):
    plan = told.write_plan(rounds=3, deadline=120)
    text = told.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
    )
    assert re.search(r"run_finished verdict=COMPLETED", text), text
    for site in SITES:
        told.processes[f"{site}-courier"].terminate()
        told.processes[f"{site}-courier"].wait(30)
    assert used(told, DEAF).get("AwaitOrders", 0) == told.heard_before, "since then it was deaf"
    for site in SITES[:2]:
        assert used(told, site)["AwaitOrders"] >= 1
    for site in SITES:
        said = told.run(
            *("cairn-audit", "verify", f"{site}/worker/ledger"),
            *("--key", f"federation/sites/{site}/ledger.pub"),
            *("--checkpoint", f"federation/sites/{site}/checkpoint.note"),
            *("--witness", "federation/pki/witness.pub"),
            *("--journal", f"{site}/courier/journal.jsonl"),
            *("--courier-key", f"federation/sites/{site}/request.json"),
        )
        assert "chain intact" in said
        assert "0.0 % of the wire unexplained" in said
        last = read_journal(told.root / site / "courier" / "journal.jsonl").entries[-1]
        assert isinstance(last, Settle), "the courier's session ended in order"

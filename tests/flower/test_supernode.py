"""A site whose connection a stock ``flower-supernode`` holds, beside two that hold their own."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import SITES, Federation, free_ports

pytestmark = [pytest.mark.flower, pytest.mark.slow, pytest.mark.timeout(600)]
CARRIED = "site-c"


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Three sites; a SuperNode is started with the line that the third one's courier says."""
    federation = Federation(tmp_path_factory.mktemp("supernode"))
    try:
        federation.init()
        for site in SITES:
            federation.join_by_mail(site)
            federation.admit(site)
        federation.acquaint(*SITES)
        for site in SITES:
            federation.allow(site, approval='"bounded"')
        federation.start_aggregator()
        for site in SITES[:2]:
            federation.start_site(site)
        federation.start(f"{CARRIED}-worker", "cairn-site", "worker", "--site-dir", CARRIED)
        courier = ("cairn-site", "courier", "--carrier", "supernode", "--site-dir", CARRIED)
        federation.start(f"{CARRIED}-courier", *courier)
        federation.wait_for(f"{CARRIED}-courier", "start it: ")
        line = re.search(r"start it: \S+=0 (.+)", federation.log(f"{CARRIED}-courier"))[1]
        port = ("--port", str(free_ports(1)))
        federation.start("supernode", *shlex.split(line), *port)
        federation.wait(lambda: online(federation) == set(SITES), "third site", 120)
        yield federation
    finally:
        federation.stop()


def online(federation: Federation) -> set[str]:
    told = json.loads(federation.run("cairn-aggregator", "sites", "--dir", "federation", "--json"))
    return {site["name"] for site in told["sites"] if site["online"]}


def verified(federation: Federation, site: str) -> dict:
    folder = Path("federation") / "sites" / site
    told = federation.run(
        *("cairn-audit", "verify", f"{site}/worker/ledger", "--json"),
        *("--key", str(folder / "ledger.pub"), "--witness", "federation/pki/witness.pub"),
        *("--checkpoint", str(folder / "checkpoint.note")),
        *("--journal", f"{site}/courier/journal.jsonl"),
        *("--courier-key", str(folder / "request.json")),
    )
    return json.loads(told)["ledgers"][0]


def test_a_run_completes_at_sites_of_both_kinds_and_the_audit_says_which(carried):
    plan = carried.write_plan(rounds=2, deadline=90, quorum=3)
    told = carried.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
        timeout=500,
    )
    assert "verdict=COMPLETED" in told, told + carried.log("supernode")
    own, handed = verified(carried, SITES[0]), verified(carried, CARRIED)
    assert own["balance"]["holds"]
    assert not any("SuperNode" in note for note in own["balance"]["notes"])
    assert handed["balance"]["holds"], handed["balance"]["findings"]
    assert handed["balance"]["declared_unsent"] == []
    assert any("were handed to a SuperNode" in note for note in handed["balance"]["notes"])
    assert handed["balance"]["wire_bytes"] < own["balance"]["wire_bytes"]

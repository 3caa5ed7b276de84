"""Relays between the aggregator and its sites, every one a real process on loopback."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.programs import Federation, free_ports

pytestmark = [pytest.mark.flower, pytest.mark.timeout(600)]

BEHIND = {"site-a": "east", "site-b": "east", "site-c": "west", "site-d": ""}
"""The last one connects to the aggregator itself."""


class Relayed(Federation):
    """A federation between whose aggregator and three of its four sites stand two relays.

    ``told``: what each site's people were told when it joined.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.told: dict[str, str] = {}

    def add_relay(self, name: str) -> None:
        self.run(
            *("cairn-aggregator", "relay", "add", name, "--dir", "federation"),
            *("--address", f"127.0.0.1:{free_ports(4)}"),
        )

    def join_behind(self, site: str, relay: str) -> None:
        behind = ("--relay", relay) if relay else ()
        self.run("cairn-aggregator", "invite", site, "--dir", "federation", *behind)
        self.told[site] = self.join_invited(site)

    def start_relay(self, name: str) -> None:
        self.start(*(name, "cairn-aggregator", "relay", "up", f"{name}.relay.toml", "--dir", name))

    def relays(self) -> dict[str, dict[str, object]]:
        told = self.run("cairn-aggregator", "relay", "list", "--dir", "federation", "--json")
        return {line["name"]: line for line in json.loads(told)["relays"]}

    def sites(self) -> dict[str, dict[str, object]]:
        told = self.run("cairn-aggregator", "sites", "--dir", "federation", "--json")
        return {line["name"]: line for line in json.loads(told)["sites"]}

    def wait_for_sites(self, *names: str) -> None:
        """Until the aggregator holds these sites to be connected, here or to their relays."""

        def are_there() -> bool:
            lines = self.sites()
            return all(lines[name]["online"] for name in names)

        self.wait(are_there, "site that is connected", 120)

    def round(self, *words: str, code: int = 0) -> tuple[list[dict[str, object]], dict]:
        """A run to its end: its journal, and what ``status --json`` says of it."""
        plan = self.write_plan(rounds=2, deadline=60, quorum=3)
        self.run(
            *("cairn-aggregator", "round", "start", plan, "--dir", "federation", "--watch", *words),
            code=code,
        )
        run = self.newest_run()
        told = self.run("cairn-aggregator", "status", run.name, "--dir", "federation", "--json")
        return self.events(run), json.loads(told)


@pytest.fixture(scope="module")
def relayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relayed]:
    federation = Relayed(tmp_path_factory.mktemp("relayed"))
    try:
        federation.init()
        federation.start_aggregator()
        for relay in ("east", "west"):
            federation.add_relay(relay)
            federation.start_relay(relay)
            federation.wait_for(relay, "ready")
        for site, relay in BEHIND.items():
            federation.join_behind(site, relay)
        federation.acquaint(*BEHIND)
        for site in BEHIND:
            federation.allow(site, approval='"bounded"')
            federation.start_site(site)
        for site in BEHIND:
            federation.wait_for(f"{site}-courier", "online")
        yield federation
    finally:
        federation.stop()


def replies(events: list[dict[str, object]], round_: int) -> dict[str, str]:
    """The relay that each site's accepted answer of a round came by."""
    mine = [e for e in events if e["event"] == "site_replied" and e["round"] == round_]
    return {str(e["site"]): str(e.get("relay", "")) for e in mine}


@pytest.fixture(scope="module")
def completed(relayed) -> tuple[str, list[dict[str, object]], dict, str]:
    """A run of all four sites: its name, its journal, its status, and an audit of a site then."""
    relayed.wait_for_sites(*BEHIND)
    events, status = relayed.round("--min-sites", "4")
    audit = relayed.run(
        *("cairn-audit", "verify", "site-a/worker/ledger", "--journal"),
        *("site-a/courier/journal.jsonl", "--key", "federation/sites/site-a/ledger.pub"),
        *("--checkpoint", "federation/sites/site-a/checkpoint.note"),
        *("--witness", "federation/pki/witness.pub"),
        *("--courier-key", "federation/sites/site-a/request.json"),
    )
    return relayed.newest_run().name, events, status, audit


def test_sites_behind_relays_and_beside_them_carry_a_plan_out_together(relayed, completed):
    _, events, status, _ = completed
    assert status["verdict"] == "COMPLETED"
    for round_ in (1, 2):
        assert replies(events, round_) == BEHIND
    assert not [e for e in events if e["event"] == "relay_failed"]
    for site, relay in BEHIND.items():
        assert (f"{site} is behind relay {relay}" in relayed.told[site]) is bool(relay)
        assert ("(relay " in relayed.log(f"{site}-courier")) is bool(relay)


def test_what_left_a_site_behind_a_relay_is_audited_as_ever_and_lies_at_the_relay(
    relayed, completed
):
    run, _, _, said = completed
    assert "chain intact" in said
    assert "0.0 % of the wire unexplained" in said
    payloads = relayed.root / "site-a" / "worker" / "ledger" / "payloads"
    left = {path.name for path in payloads.iterdir()}
    kept = archived(relayed.root / "east" / "archive" / run, "site-a")
    assert kept, "the relay archives what it adds"
    assert kept <= left
    beside = archived(relayed.root / "federation" / "runs" / run, "site-a")
    assert beside, "its head is the aggregator's"
    assert beside < kept


def archived(run: Path, site: str) -> set[str]:
    """Digests of a site's records in an archive of a run, which are their names."""
    return {path.stem for path in run.glob(f"rounds/*/{site}/*.envelope")}


@pytest.mark.slow
def test_a_relay_that_was_killed_costs_a_round_at_most_and_goes_on_when_started_again(relayed):
    relayed.kill("west")
    relayed.wait(lambda: not relayed.relays()["west"]["here"], "word of the relay that is gone")
    assert not relayed.sites()["site-c"]["online"]
    events, status = relayed.round("--min-sites", "3")
    assert status["verdict"] == "DEGRADED", "three of four are a quorum"
    assert set(replies(events, 1)) == {"site-a", "site-b", "site-d"}
    relayed.start_relay("west")
    relayed.wait_for_sites("site-c")
    events, status = relayed.round("--min-sites", "4")
    assert status["verdict"] == "COMPLETED"
    assert replies(events, 2) == BEHIND


@pytest.mark.slow
def test_the_errands_are_begun_anew_when_their_process_is_killed(relayed):
    before = errands(relayed)
    assert len(before) == 1
    before[0].send_signal(signal.SIGKILL)
    relayed.wait(lambda: (now := errands(relayed)) and now != before, "new errands", 120)
    relayed.wait_for_sites(*BEHIND)
    events, status = relayed.round("--min-sites", "4")
    assert (status["verdict"], replies(events, 1)) == ("COMPLETED", BEHIND)


def test_a_newer_errand_ends_the_one_that_waits_for_a_silent_site(relayed):
    """The coordinator stops a run that a site behind a relay holds up; the next one begins."""
    # Where a site was revoked a new key is on its way, for which a run waits: with this everybody
    # has it.
    relayed.wait_for_sites(*BEHIND)
    assert relayed.round("--min-sites", "4")[1]["verdict"] == "COMPLETED"
    silent = relayed.processes["site-a-worker"]
    silent.suspend()
    try:
        plan = relayed.write_plan(rounds=2, deadline=300, quorum=3)
        relayed.run("cairn-aggregator", "round", "start", plan, "--dir", "federation")
        run = relayed.newest_run()
        relayed.wait(
            lambda: any(e["event"] == "site_replied" for e in relayed.events(run)), "a reply"
        )
        said = relayed.run("cairn-aggregator", "round", "stop", "--dir", "federation")
        assert "recorded at site-b, site-c, site-d" in said, said
    finally:
        silent.resume()
    relayed.wait_for_sites(*BEHIND)
    events, status = relayed.round("--min-sites", "4")
    assert (status["verdict"], replies(events, 1)) == ("COMPLETED", BEHIND)


def test_a_site_that_is_revoked_is_let_in_by_its_relay_no_more(relayed):
    relayed.join_behind("site-r", "east")
    relayed.start("site-r-courier", "cairn-site", "courier", "--site-dir", "site-r")
    relayed.wait_for_sites("site-r")
    relayed.run("cairn-aggregator", "revoke", "site-r", "--yes", "--dir", "federation")
    relayed.wait_for("site-r-courier", "does not accept this site's node key", 60)


def test_a_relay_that_was_withdrawn_is_refused_and_its_site_joins_elsewhere(relayed):
    relayed.add_relay("north")
    relayed.join_behind("site-n", "north")
    relayed.start_relay("north")
    relayed.wait(lambda: bool(relayed.relays()["north"]["here"]), "word of the relay")
    said = relayed.run("cairn-aggregator", "relay", "withdraw", "north", "--dir", "federation")
    assert "site-n is behind it" in said
    relayed.wait_for("north", "this relay was withdrawn", 60)
    assert relayed.processes["north"].wait(60) == 3, "trying again would not help"
    assert relayed.relays()["north"]["state"] == "withdrawn"
    said = relayed.run(
        *("cairn-aggregator", "invite", "site-o", "--relay", "north", "--dir", "federation"),
        code=3,
    )
    assert "withdrawn" in said
    relayed.run("cairn-aggregator", "invite", "site-n", "--relay", "east", "--dir", "federation")
    assert relayed.sites()["site-n"]["relay"] == "east"
    again = relayed.run(
        *("cairn-site", "join", "site-n.invite.toml", "--data", "data/site-n"),
        *("--site-dir", "site-n"),
    )
    assert "behind relay east" in again
    relayed.run("cairn-aggregator", "revoke", "site-n", "--yes", "--dir", "federation")


def errands(relayed: Relayed) -> list[psutil.Process]:
    """The processes that do the errands of the relay called east."""
    lock = relayed.root / "east" / "errands.lock"
    found = []
    for child in relayed.processes["east"].children(recursive=True):
        with suppress(psutil.Error):
            if any(file.path == str(lock) for file in child.open_files()):
                found.append(child)
    return found

"""The federation key over the real desk: gRPC, TLS, the commands that people type, nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from click.testing import CliRunner

from aggregator.admin.enrol import revoke
from aggregator.admin.invites import invite_toml
from common.audit.cli import cli as audit_cli
from common.crypto.identity import read_signing_key
from common.crypto.keyed import read_federation_key
from site_client.checks import check_site
from site_client.cli import cli
from site_client.keys.carry import keep_carrying
from site_client.keys.first import exchange_now
from site_client.keys.ring import Held, KeyRing
from site_client.site import SiteFolder
from site_client.status import read_status
from site_client.worker.loop import Worker

LONG_ENOUGH_S = 60.0


def joined(served, name: str) -> tuple[SiteFolder, str]:
    """A site that was given its invite and nothing else, and what `join` told it."""
    file, data = served.root / f"{name}.toml", served.root / "images"
    data.mkdir(exist_ok=True)
    file.write_bytes(invite_toml(served.invite(name)))
    site = SiteFolder(served.root / "sites" / name)
    words = ["join", str(file), "--data", str(data), "--site-dir", str(site.root)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return site, done.output


def confirm_each_other(*sites: SiteFolder) -> None:
    """What the staff of each type after a telephone call."""
    aloud = {
        site.settings().site: read_signing_key(site.ledger_key).public.fingerprint[:16]
        for site in sites
    }
    for site in sites:
        heard = [f"{name}:{d}" for name, d in aloud.items() if name != site.settings().site]
        words = ["peers", "confirm", *heard, "--by", "IT", "--site-dir", str(site.root)]
        done = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output


@contextmanager
def running(*sites: SiteFolder) -> Iterator[None]:
    """Every site's worker, and its courier's thread for the keys."""
    stop, threads = threading.Event(), []
    with ExitStack() as stack:
        for site in sites:
            worker = stack.enter_context(Worker(site, stop))
            threads += [
                threading.Thread(target=worker.run),
                threading.Thread(target=keep_carrying, args=(site, stop)),
            ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)


def held(site: SiteFolder) -> Held | None:
    return KeyRing(site).newest()


def wait_for(sites, generation: int) -> str:
    """The id of the key that all of these have, in this generation."""
    deadline = time.monotonic() + LONG_ENOUGH_S
    while time.monotonic() < deadline:
        found = [held(site) for site in sites]
        if all(one is not None and one.generation == generation for one in found):
            [key_id] = {one.key.key_id for one in found}
            return key_id
        time.sleep(0.1)
    pytest.fail(f"not all of them have generation {generation}")


def test_three_sites_join_with_an_invite_each_and_share_a_key_that_changes_when_one_leaves(served):
    north, told = joined(served, "north")
    assert "The federation key is here: id" in told
    south, told = joined(served, "south")
    assert "north to be confirmed: cairn-site peers confirm north" in told
    east, _ = joined(served, "east")
    confirm_each_other(north, south, east)
    with running(north, south, east):
        first = wait_for((north, south, east), 1)
    assert [fact.says for fact in check_site(south) if fact.name == "federation key"] == [
        read_status(south).key.says
    ]
    assert read_status(south).as_dict()["key"]["key_id"] == first
    revoke(served.folder, "east")
    with running(north, south):
        second = wait_for((north, south), 2)
    assert second != first
    with running(east):
        time.sleep(1)
    assert held(east).key.key_id == first
    for site in (north, south, east):
        key = site.root / "ledger.pub"
        key.write_text(read_signing_key(site.ledger_key).public.text)
        words = ["verify", str(site.ledger), "--key", str(key)]
        journal = site.journal
        done = CliRunner().invoke(
            audit_cli, words + (["--journal", str(journal)] * journal.exists())
        )
        assert done.exit_code == 9, done.output
        assert "does not hold" not in done.output
    shown = CliRunner().invoke(audit_cli, ["show", str(north.ledger)]).output
    for site in (north, south, east):
        name = site.settings().site
        assert f"{name}:{read_signing_key(site.ledger_key).public.fingerprint}" in shown
    kept = b"\n".join(p.read_bytes() for p in served.folder.root.rglob("*") if p.is_file())
    for path in [*north.key_ring.glob("*.key"), *east.key_ring.glob("*.key")]:
        secret = read_federation_key(path).secret
        assert secret not in kept
        assert secret.hex().encode() not in kept


def test_while_a_worker_runs_join_leaves_the_key_to_it(served):
    north, _ = joined(served, "north")
    with Worker(north, threading.Event()):
        assert exchange_now(north).key_id == held(north).key.key_id

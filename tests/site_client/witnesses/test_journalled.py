"""What a witness is asked stands in the courier's journal before it leaves, to the byte."""

from __future__ import annotations

import json
from functools import partial

import pytest

from common.canonical import sha256_hex
from common.crypto.certificates import generate_node_key, write_node_key
from common.witness.client import WitnessClient
from site_client.courier.wire import journalled_client
from site_client.journal import open_journal
from site_client.second_door.outbox import Outbox
from site_client.spool import Spool
from site_client.witnesses.answers import mark_of
from site_client.witnesses.carry import WitnessCarrier


@pytest.fixture
def journalled(site):
    """The site's carrier as `cairn-site courier` makes it, and the journal's lines so far."""
    write_node_key(site.folder.node_key, generate_node_key())
    journal = None

    def make():
        nonlocal journal
        journal = open_journal(site.folder)
        connect = partial(journalled_client, journal, "witness")
        return WitnessCarrier(site.folder, connect, ticks=lambda: site.seconds)

    def lines() -> list[dict[str, object]]:
        journal.settle()
        return [json.loads(line) for line in site.folder.journal.read_bytes().splitlines()]

    return make, lines


def test_every_request_to_a_witness_is_a_line_with_its_digest(site, ledger, north, journalled):
    make, lines = journalled
    with north.served(site.log) as url:
        site.name(f"{north.line('north', url)}quorum north\n")
        asking = site.asking(ledger)
        asking.turn()
        body = Spool(site.folder.spool).checkpoint_path(mark_of(url)).read_bytes()
        site.settle(asking, make())
    asked = [line for line in lines() if line.get("receiver") == "witness"]
    assert [line["kind"] for line in asked] == ["add-checkpoint"]
    assert (asked[0]["sha256"], asked[0]["body"]) == (sha256_hex(body), len(body))
    assert asking.standing.witnessed == ledger.size


def test_what_a_refusing_witness_holds_is_asked_for_and_journalled(site, ledger, north, journalled):
    make, lines = journalled
    forked = site.log.grow(4, b"another history")
    with north.served(site.log) as url:
        site.name(f"{north.line('north', url)}quorum north\n")
        assert WitnessClient().add_checkpoint(url, forked.ask(0)).status == 200
        asking = site.asking(ledger)
        site.settle(asking, make())
    kinds = [line["kind"] for line in lines() if line.get("receiver") == "witness"]
    assert kinds[:2] == ["add-checkpoint", "get-checkpoint"]
    (seen,) = asking.standing.contradictions
    assert seen.proven


def test_a_checkpoint_for_a_witness_is_no_stranger_in_the_outbox(site, ledger, north):
    site.name(f"{north.line('north', 'http://127.0.0.1:9')}quorum north\n")
    site.asking(ledger).turn()
    spool = Spool(site.folder.spool)
    (spool.outbox / "aaaa.checkpoint").write_bytes(b"smuggled")
    assert Outbox(spool).strangers() == ["aaaa.checkpoint"]

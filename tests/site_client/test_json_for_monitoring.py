"""What monitoring reads of a site keeps its fields, and `--help` says what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import invite_toml, make_invite
from site_client.cli import cli

STATUS = {
    "site": str,
    "last": type(None),
    "records": int,
    "bytes_out": int,
    "refusals": int,
    "witnessed": int,
    "waiting": list,
    "log": str,
    "key": type(None),
    "peers": dict,
    "certificate_days": type(None),
    "plans": list,
    "budget": dict,
    "put_aside": list,
    "restore": type(None),
    "trouble": type(None),
    "held_out": type(None),
    "errors": type(None),
    "witnesses": type(None),
}
LAST = {
    "run": "r1",
    "round": 2,
    "phase": "train",
    "plan": "p",
    "code": 0,
    "meaning": "done",
    "seconds": 1.5,
    "at": "2026-01-01T00:00:00+00:00",
}
FACTS = [
    "settings",
    "policy",
    "ledger key",
    "witness key",
    "federation key",
    "peers",
    "images",
    "held out",
    "data",
    "ledger",
    "witnesses",
    "budget",
    "plans",
    "node key",
    "authority",
    "certificate",
    "app",
    "server",
    "admission",
    "disk",
]


def call(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    federation = FederationFolder(tmp_path / "fed")
    create_federation(
        federation, FederationSettings(name="x", address="127.0.0.1:9", port=1000), ["127.0.0.1"]
    )
    invite = tmp_path / "invite.toml"
    invite.write_bytes(invite_toml(make_invite(federation, "site-a", "0" * 64, by_mail=True)))
    (tmp_path / "images").mkdir()
    folder = tmp_path / "site"
    done = call("join", invite, "--data", tmp_path / "images", "--site-dir", folder)
    assert done.exit_code == 0, done.output
    return folder


def test_status_has_these_fields_of_these_kinds(site):
    told = json.loads(call("status", "--json", "--site-dir", site).stdout)
    assert {name: type(value) for name, value in told.items()} == STATUS
    assert [type(count) for count in told["waiting"]] == [int, int]


def test_status_hands_on_what_was_answered_last(site):
    (site / "worker" / "status.json").write_text(json.dumps(LAST))
    assert json.loads(call("status", "--json", "--site-dir", site).stdout)["last"] == LAST


def test_check_has_these_facts_in_this_order_and_four_words_about_each(site):
    done = call("check", "--json", "--site-dir", site)
    told = json.loads(done.stdout)
    assert set(told) == {"ready", "facts"}
    assert told["ready"] is False
    names = [fact["name"] for fact in told["facts"]]
    assert names[: len(FACTS)] == FACTS, "what comes after them is what confines the process"
    for fact in told["facts"]:
        assert set(fact) == {"name", "level", "says", "fix"}
        assert all(isinstance(value, str) for value in fact.values())
        assert fact["level"] in {"ok", "warning", "bad"}
        assert fact["fix"] or fact["level"] != "bad", "who is told that it is bad is told a way"
    bad = [fact["name"] for fact in told["facts"] if fact["level"] == "bad"]
    assert bad == ["images", "server"]
    assert done.exit_code == 6, "the first bad fact's"


@pytest.mark.parametrize("command", ["status", "check"])
def test_help_names_every_field(command):
    text = call(command, "--help").output
    assert "fields are added and never renamed" in text
    for name in {"status": [*STATUS, *LAST], "check": ["ready", "facts", "name", "says", "fix"]}[
        command
    ]:
        assert name in text

"""Joining as hospital IT types it: against a real enrolment desk, and what goes wrong."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from aggregator.admin.enrol import admit_waiting, create_federation, revoke
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import invite_toml, make_invite
from aggregator.desk.server import DeskServer
from common.cli import run
from common.crypto.certificates import read_certificate
from common.enrolment import read_request
from site_client.cli import cli
from site_client.site import SiteFolder
from tests.programs import free_ports


@pytest.fixture
def federation(tmp_path_factory):
    folder = FederationFolder(tmp_path_factory.mktemp("desk") / "fed")
    port = free_ports(4)
    settings = FederationSettings(name="brains", address=f"127.0.0.1:{port}", port=port)
    create_federation(folder, settings, ["127.0.0.1"])
    server = DeskServer(folder)
    server.start()
    yield folder
    server.stop()


@pytest.fixture
def cairn(capsys):
    def call(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(cli, [str(word) for word in words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def invite(federation, tmp_path):
    """Writes an invite for a site; ``changes`` bend lines of it."""

    def write(site: str, changes: dict[str, str] | None = None, **words) -> Path:
        made = make_invite(federation, site, "0" * 64, **words)
        path = tmp_path / f"{site}.invite.toml"
        path.write_bytes(invite_toml(made.model_copy(update=changes or {})))
        return path

    (tmp_path / "images").mkdir()
    return write


def words(path: Path, place: str = "site") -> tuple[object, ...]:
    return ("join", path, "--data", path.parent / "images", "--site-dir", path.parent / place)


def test_one_command_from_invite_to_certificate(cairn, invite, federation, tmp_path):
    code, out, err = cairn(*words(invite("one")), "--new-federation-key")
    assert (code, err) == (0, "")
    assert "has joined brains" in out
    assert "good for 89 days" in out
    site = SiteFolder(tmp_path / "site")
    assert read_certificate(site.tls_certificate).issuer == read_certificate(site.authority).subject
    for secret in (site.ledger_key, site.node_key, site.sealing_key, site.tls_key):
        assert secret.stat().st_mode & 0o077 == 0
    assert federation.admitted()["one"].request == read_request(site.request_file)
    assert "PRIVATE" not in site.request_file.read_text()
    assert invite_token(tmp_path / "one.invite.toml") not in everything(site.root)


def invite_token(path: Path) -> str:
    return next(
        line.split('"')[1] for line in path.read_text().splitlines() if line.startswith("token")
    )


def everything(folder: Path) -> str:
    """Every file but the courier's journal: what was asked of the desk is added to that."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "journal.jsonl"]
    assert len(files) > 8
    return "".join(path.read_bytes().decode("latin-1") for path in files)


def test_joining_again_changes_nothing(cairn, invite, tmp_path):
    path = invite("again")
    assert cairn(*words(path))[0] == 0
    before = everything(tmp_path / "site")
    code, out, _ = cairn(*words(path))
    assert code == 0
    assert "has joined" in out
    assert everything(tmp_path / "site") == before


def test_a_join_that_was_cut_off_anywhere_goes_on_with_the_keys_it_made(cairn, invite, tmp_path):
    path = invite("cut")
    assert cairn(*words(path))[0] == 0
    site = SiteFolder(tmp_path / "site")
    ledger_key = site.ledger_key.read_bytes()
    for lost in (site.settings_file, site.tls_certificate, site.policy_file):
        lost.unlink()
        code, _, err = cairn(*words(path))
        assert (code, err) == (0, ""), lost
        assert site.ledger_key.read_bytes() == ledger_key
        assert site.settings_file.exists()
        assert site.tls_certificate.exists()
        if lost == site.policy_file:
            continue
        assert site.policy_file.exists()


def test_a_site_that_must_wait_is_told_so_and_learns_of_its_admission(
    cairn, invite, federation, tmp_path
):
    code, out, _ = cairn(*words(invite("patient", auto_admit=False)))
    assert code == 0
    assert "cairn-aggregator admit patient" in out
    ask = ("renew", "--site-dir", tmp_path / "site")
    assert "not admitted" in cairn(*ask)[1]
    admit_waiting(federation, "patient")
    code, out, _ = cairn(*ask, "--json")
    assert json.loads(out) == {"state": "admitted", "certificate_days": 89}
    assert "89 days" in cairn(*ask)[1]


def test_offline_makes_a_request_and_asks_nobody(cairn, invite, federation, tmp_path):
    path = invite("far", {"enrolment": "127.0.0.1:9"})
    code, out, _ = cairn(*words(path), "--offline")
    assert code == 0
    assert f"Send {tmp_path / 'site' / 'request.json'}" in out
    assert "far" not in federation.admitted()


def test_an_invite_without_a_token_needs_no_network(cairn, invite, tmp_path):
    code, out, _ = cairn(*words(invite("mail", by_mail=True)))
    assert code == 0
    assert "is ready to join" in out
    code, _, err = cairn("renew", "--site-dir", tmp_path / "site")
    assert code == 6
    assert "joined by mail" in err


# What goes wrong: one line, within five seconds, with its code.


def one_line(cairn, *command) -> tuple[int, str]:
    start = time.monotonic()
    code, out, err = cairn(*command)
    assert time.monotonic() - start < 5
    assert out == ""
    assert err.count("\n") == 1, err
    assert f"(exit {code})" in err
    return code, err


def test_a_wrong_address_is_unreachable_and_nothing_is_made(cairn, invite, tmp_path):
    code, line = one_line(cairn, *words(invite("lost", {"enrolment": "127.0.0.1:9"})))
    assert code == 5
    assert "127.0.0.1:9" in line
    assert "--offline" in line
    assert not (tmp_path / "site").exists()


def test_a_wrong_ca_fails_verification_and_nothing_is_made(cairn, invite, tmp_path):
    other = FederationFolder(tmp_path / "other")
    settings = FederationSettings(name="brains", address="127.0.0.1:1000", port=1000)
    create_federation(other, settings, ["127.0.0.1"])
    theirs = make_invite(other, "north", "0" * 64)
    here = make_invite_address(invite)
    path = tmp_path / "x.invite.toml"
    path.write_bytes(invite_toml(theirs.model_copy(update={"enrolment": here})))
    code, line = one_line(cairn, *words(path))
    assert code == 4
    assert "another authority" in line
    assert not (tmp_path / "site").exists()


def make_invite_address(invite) -> str:
    text = invite("address").read_text()
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith("enrolment"))


def test_an_expired_invite_is_refused(cairn, invite):
    code, line = one_line(cairn, *words(invite("old", now=datetime(2020, 1, 1, tzinfo=UTC))))
    assert code == 3
    assert "expired" in line
    assert "new invite" in line


def test_a_used_token_is_refused_for_other_keys_and_a_new_invite_mends_it(cairn, invite, tmp_path):
    path = invite("twice", auto_admit=False)
    assert cairn(*words(path))[0] == 0
    code, line = one_line(cairn, *words(path, "elsewhere"))
    assert code == 3
    assert "used already" in line
    code, out, _ = cairn(*words(invite("twice"), "elsewhere"))
    assert code == 0
    assert "Admitted" in out


def test_a_revoked_site_is_refused_by_join_and_by_renew(cairn, invite, federation, tmp_path):
    path = invite("gone")
    assert cairn(*words(path))[0] == 0
    revoke(federation, "gone")
    for command in (words(path), ("renew", "--site-dir", tmp_path / "site")):
        code, line = one_line(cairn, *command)
        assert code == 3
        assert "revoked" in line
        assert "new name" in line


def test_check_says_whether_the_desk_admits_this_site(cairn, invite, federation, tmp_path):
    def admission() -> dict[str, str]:
        _, said, _ = cairn("check", "--site-dir", tmp_path / "site", "--json")
        (fact,) = (f for f in json.loads(said)["facts"] if f["name"] == "admission")
        return dict(fact)

    assert cairn(*words(invite("known")))[0] == 0
    assert admission()["level"] == "ok"
    assert "admitted" in admission()["says"]
    revoke(federation, "known")
    found = admission()
    assert found["level"] == "bad"
    assert "revoked" in found["says"]
    assert "new name" in found["fix"]


def test_an_invite_for_another_site_does_not_change_this_one(cairn, invite, tmp_path):
    assert cairn(*words(invite("mine")))[0] == 0
    code, line = one_line(cairn, *words(invite("yours")))
    assert code == 3
    assert "another site's" in line
    assert SiteFolder(tmp_path / "site").settings().site == "mine"


def test_help_teaches_both_ways():
    text = CliRunner().invoke(cli, ["join", "--help"]).output
    assert "--offline" in text
    assert "keeps the keys" in text

"""`cairn-aggregator revoke` cannot be taken back: it says whom it is about and what follows."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.admin.enrol import admit, create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import make_invite
from common.crypto.certificates import generate_node_key, node_public_line
from common.crypto.identity import SigningKey
from common.enrolment import JoinRequest

MAIN = "from aggregator.cli import main; main()"


@pytest.fixture
def folder(tmp_path: Path) -> FederationFolder:
    """A federation with one admitted site."""
    folder = FederationFolder(tmp_path / "fed")
    settings = FederationSettings(name="brains", address="127.0.0.1:9", port=1000)
    create_federation(folder, settings, ["127.0.0.1"])
    keys = SigningKey.generate()
    node = node_public_line(generate_node_key())
    admit(folder, JoinRequest(
        federation="brains", site="site-a", node_key=node, ledger_key=keys.public.text
    ))  # fmt: skip
    return folder


def command(folder: FederationFolder, site: str, *words: str) -> list[str]:
    return [sys.executable, "-P", "-c", MAIN, "revoke", site, "--dir", str(folder.root), *words]


def answered(folder: FederationFolder, site: str, answer: str) -> tuple[int, str]:
    """The command in a terminal, where a person types one line."""
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        command(folder, site), stdin=theirs, capture_output=True, encoding="utf-8", check=False
    )
    os.close(theirs)
    os.close(ours)
    return done.returncode, done.stdout + done.stderr


def test_where_nobody_can_answer_it_is_a_usage_error_and_nothing_changes(folder):
    done = subprocess.run(
        command(folder, "site-a"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert list(folder.admitted()) == ["site-a"]


def test_where_nobody_can_answer_yes_is_an_option(folder):
    done = subprocess.run(
        command(folder, "site-a", "--yes"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert folder.admitted() == {}


def test_a_person_sees_name_fingerprint_and_what_follows_before_saying_yes(folder):
    fingerprint = folder.admitted()["site-a"].ledger_key.fingerprint
    code, said = answered(folder, "site-a", "y")
    assert code == 0, said
    assert f"site-a: admitted, fingerprint of its ledger key {fingerprint}" in said
    for follows in ("never return", "federation key", "disconnected", "stays in their sums"):
        assert follows in said
    assert folder.admitted() == {}


@pytest.mark.parametrize("answer", ["n", ""])
def test_any_answer_but_yes_changes_nothing(folder, answer):
    code, said = answered(folder, "site-a", answer)
    assert code == 3
    assert "nothing was changed" in said
    assert list(folder.admitted()) == ["site-a"]


def test_of_a_site_that_was_only_invited_less_follows_and_that_is_said(folder):
    make_invite(folder, "site-b", "0" * 64)
    code, said = answered(folder, "site-b", "y")
    assert code == 0, said
    assert "site-b: invited, no keys" in said
    assert "The name stays free" in said
    assert "federation key" not in said


def test_a_site_that_nobody_knows_is_said_without_asking(folder):
    code, said = answered(folder, "nobody", "y")
    assert code == 6
    assert "no such site" in said
    assert "?" not in said

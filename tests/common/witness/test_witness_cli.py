"""A witness as its operator and an auditor meet it: by commands, as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from common.errors import CairnError
from common.ledger.notes import parse_note
from common.witness.cli import cli
from common.witness.client import WitnessClient
from common.witness.policy import parse_policy
from common.witness.vkeys import vkey_text
from tests.common.witness.conftest import ORIGIN


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    if isinstance(result.exception, CairnError):
        assert int(result.exception.exit_code) == code, str(result.exception)
        return str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@contextmanager
def serving(folder) -> Iterator[str]:
    """The address of `cairn-witness serve`, in a process that ends by SIGTERM."""
    command = [sys.executable, "-P", "-m", "common.witness.cli", "serve", "--dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline().decode()
        yield f"http://127.0.0.1:{json.loads(text)['port']}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def folder(tmp_path, log):
    made = tmp_path / "w1"
    call("keygen", "witness.example/w1", "--dir", made)
    call("add-log", vkey_text(log.public), "--dir", made)
    return made


def test_a_witness_is_made_served_asked_and_rotated_by_commands(folder, log, tmp_path):
    lines = [line for line in call("show", "--dir", folder).split("\n") if line]
    witnesses = [line for line in lines if line.startswith("witness ")]
    names = [line.split()[1] for line in witnesses]
    assert names == ["witness.example-w1-ed25519", "witness.example-w1-mldsa44"]
    client, policy = WitnessClient(), tmp_path / "policy"
    with serving(folder) as url:
        text = "".join(f"{line} {url}\n" for line in witnesses)
        policy.write_text(f"{text}group w all {' '.join(names)}\nquorum w\n")
        answer = client.add_checkpoint(url, log.ask(0))
        assert (
            parse_policy(policy.read_text())
            .judge(log.note + answer.body, log_key=log.public)
            .witnessed
        )
        told = json.loads(call("latest", policy, ORIGIN, "-o", tmp_path / "got", "--json"))
        assert set(told["sizes"].values()) == {1}
        note = (tmp_path / "got" / "1.note").read_bytes()
        assert parse_note(note).checkpoint == log.checkpoint
    rotated = json.loads(call("rotate", "--dir", folder, "--json"))
    followed = tmp_path / "policy-2"
    call("follow", policy, rotated["rotation"], "-o", followed)
    assert all(vkey in followed.read_text() for vkey in rotated["vkeys"])
    with serving(folder) as url:
        answer = client.add_checkpoint(url, log.grow(3).ask(1))
        whole = log.note + answer.body
        for each in (policy, followed):  # old and new keys cosign side by side
            assert parse_policy(each.read_text()).judge(whole, log_key=log.public).witnessed
    assert json.loads(call("retire", "--dir", folder, "--json")) == {"retired": [1]}
    with serving(folder) as url:
        answer = client.add_checkpoint(url, log.ask(4))
        whole = log.note + answer.body
        assert parse_policy(followed.read_text()).judge(whole, log_key=log.public).witnessed
        assert not parse_policy(policy.read_text()).judge(whole, log_key=log.public).witnessed
    shown = json.loads(call("show", "--dir", folder, "--json"))
    assert shown["logs"] == [{"origin": ORIGIN, "size": 4, "evidence": 0}]


def test_keys_are_their_owners_alone_and_never_overwritten(folder):
    for path in (folder / "keys" / "1").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert "overwritten" in call("keygen", "witness.example/w1", "--dir", folder, code=6)


def test_beyond_this_machine_a_witness_speaks_tls_or_says_that_it_does_not(folder):
    said = call("serve", "--dir", folder, "--host", "192.0.2.1", code=2)
    assert "speaks TLS" in said


def test_a_log_keeps_its_key(folder, log, bench):
    assert "served already" in call("add-log", vkey_text(log.public), "--dir", folder)
    log.key = bench.classical
    assert "another key" in call("add-log", vkey_text(log.public), "--dir", folder, code=6)
    call("add-log", vkey_text(bench.keys[0]), "--dir", folder, code=6)


@pytest.mark.parametrize("name", ["", "a b", "A", "x+y", "-", "é", "a" * 200])
def test_a_witness_has_a_plain_name(tmp_path, name):
    call("keygen", name, "--dir", tmp_path / "w", code=6)

"""`cairn-site up` as systemd runs it: told when it is ready, asked to stop, ended in time.

No aggregator is needed: to be on is not to be connected.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import invite_toml, make_invite
from site_client.cli import cli
from site_client.supervise import GRACE_S

PROGRAM = [sys.executable, "-m", "site_client.cli"]
LIMIT_S = 120.0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site that joined by mail; at its aggregator's address nobody answers."""
    federation = FederationFolder(tmp_path / "fed")
    create_federation(
        federation, FederationSettings(name="x", address="127.0.0.1:9", port=1000), ["127.0.0.1"]
    )
    invite = tmp_path / "invite.toml"
    invite.write_bytes(invite_toml(make_invite(federation, "site-a", "0" * 64, by_mail=True)))
    (tmp_path / "images").mkdir()
    words = ["join", invite, "--data", tmp_path / "images", "--site-dir", tmp_path / "site"]
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return tmp_path / "site"


def test_systemd_is_told_once_by_one_process_and_the_stop_takes_no_longer_than_it_may(
    site, tmp_path
):
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(place))
        systemd.settimeout(LIMIT_S)
        up = subprocess.Popen(
            [*PROGRAM, "up", "--site-dir", str(site)],
            env={**os.environ, "NOTIFY_SOCKET": str(place)},
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        try:
            told = systemd.recv(4096).decode()
            assert told == "READY=1\nSTATUS=worker and courier run"
            # Until both have looked for the socket: a child that found it would have spoken.
            wait_for(site / "worker" / "ledger" / "checkpoint")
            wait_for(site / "worker" / "log" / "worker.log")
            began = time.monotonic()
            up.send_signal(signal.SIGTERM)
            told = systemd.recv(4096).decode()
            assert told.startswith("STOPPING=1\nSTATUS=")
            said = up.communicate(timeout=GRACE_S + 10)[1]
        finally:
            up.kill()
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(4096)
    assert up.returncode == 0, said
    assert time.monotonic() - began < GRACE_S + 10
    assert " up      stopping" in said
    assert "was killed" not in said, "both end by themselves when they are asked to"
    assert "Traceback" not in said


def test_what_the_two_processes_say_is_told_with_time_and_name_and_no_folder_is_searched(
    site, tmp_path
):
    """`common.py` in a folder is that folder's; started with it on the path it would be ours."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("common.py", "numpy.py", "site_client.py", "logging.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n")
    up = subprocess.Popen(
        [sys.executable, "-P", "-m", "site_client.cli", "up", "--site-dir", str(site)],
        cwd=folder,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        early = [next(up.stderr)]
        while "the aggregator cannot be reached" not in early[-1]:
            early.append(next(up.stderr))
        wait_for(site / "worker" / "ledger" / "checkpoint")
        up.send_signal(signal.SIGTERM)
        said = "".join(early) + up.communicate(timeout=GRACE_S + 10)[1]
    finally:
        up.kill()
    assert up.returncode == 0, said
    assert not (tmp_path / "imported").exists()
    line = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (up     |worker |courier) \S.*")
    assert all(line.fullmatch(each) for each in said.splitlines()), said
    assert re.search(r"up      worker started \(process \d+\)", said)
    assert "worker  worker of site-a is ready" in said
    assert "courier WARNING the aggregator cannot be reached" in said


def test_a_site_that_cannot_be_trusted_ends_up_with_its_code(site):
    log = site / "worker" / "ledger"
    log.mkdir()
    (log / "log.jsonl").write_text("{}\n")
    done = subprocess.run(
        [*PROGRAM, "up", "--site-dir", str(site)],
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "worker ended with exit 4; a restart would not help" in done.stderr
    assert "Traceback" not in done.stderr


def wait_for(path: Path) -> None:
    until = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.05)

"""A worker killed at any instant has released nothing that its ledger does not record.

A real process appends and "sends" (a datagram to us) as fast as it can; it is
killed with SIGKILL at random moments. Afterwards the ledger must open, verify,
and hold a record and a payload for every digest that left.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from common.crypto.identity import SigningKey, write_signing_key
from common.ledger.log import Ledger
from common.ledger.verify import verify_ledger

WRITER = """
import os, socket, sys
from datetime import UTC, datetime
from pathlib import Path
from common.crypto.identity import read_signing_key
from common.ledger.log import Ledger

folder, key, address = sys.argv[1:]
outside = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ledger = Ledger.open(Path(folder), "site-a/ledger", read_signing_key(Path(key)),
                     lambda: datetime.now(UTC))
while True:
    digest = ledger.spool(os.urandom(3000))
    ledger.append("SEND", run="run-1", round=1, record_type="ModelUpdate", payload_sha256=digest,
                  bytes=3000, arrays=(), plan_fingerprint="a" * 64, policy_sha256="b" * 64,
                  phase="train", order_sha256="c" * 64)
    outside.sendto(digest.encode(), address)
"""


@pytest.mark.parametrize(
    "kills", [25, pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_nothing_leaves_unrecorded_however_often_the_worker_is_killed(tmp_path, kills):
    folder, key_file, address = tmp_path / "ledger", tmp_path / "key.pem", tmp_path / "s"
    key = SigningKey.generate()
    write_signing_key(key_file, key)
    chance = random.Random(20260102)
    sent: set[str] = set()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        outside.bind(str(address))
        for _ in range(kills):
            with subprocess.Popen(
                [sys.executable, "-c", WRITER, str(folder), str(key_file), str(address)]
            ) as writer:
                try:
                    outside.settimeout(60)
                    sent.add(outside.recv(100).decode())
                    time.sleep(chance.uniform(0, 0.06))
                finally:
                    writer.send_signal(signal.SIGKILL)
            outside.setblocking(False)
            sent |= drain(outside)
            with Ledger.open(folder, "site-a/ledger", key, lambda: datetime.now(UTC)) as ledger:
                recorded = {record.payload_sha256 for record in ledger.records()}
                assert sent <= recorded, "something left that is not recorded"
                assert all((folder / "payloads" / digest).exists() for digest in sent)
            verdict = verify_ledger(folder, key.public, None)
            assert verdict.intact, str(verdict.broken)
    assert len(sent) >= kills, "every process must have sent something, or nothing was tested"


def drain(outside: socket.socket) -> set[str]:
    received = set()
    while True:
        try:
            received.add(outside.recv(100).decode())
        except BlockingIOError:
            return received

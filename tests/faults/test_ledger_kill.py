"""A worker killed at any instant has released nothing that its ledger does not record.

A real process appends and "sends" (a datagram to us) as fast as it can; it is
killed with SIGKILL at random moments. Afterwards the ledger must open, verify,
and hold a record and a payload for every digest that left.
"""

from __future__ import annotations

import random
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.crypto.identity import SigningKey, write_signing_key
from common.ledger.log import Ledger
from common.ledger.verify import verify_ledger
from tests.faults.writer import Writers, drain

KILLS = 25


@pytest.mark.parametrize(
    "ledgers", [1, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_nothing_leaves_unrecorded_however_often_the_worker_is_killed(tmp_path, ledgers):
    key, chance = SigningKey.generate(), random.Random(20260102)
    write_signing_key(tmp_path / "key.pem", key)
    for number in range(ledgers):
        sent = kill_repeatedly(tmp_path / str(number), tmp_path / "key.pem", key, chance)
        assert len(sent) >= KILLS, "every process must have sent something, or nothing was tested"


def kill_repeatedly(
    folder: Path, key_file: Path, key: SigningKey, chance: random.Random
) -> set[str]:
    """What left one ledger whose writer was killed again and again."""
    folder.mkdir()
    address, sent = folder / "s", set[str]()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside,
        Writers(folder / "ledger", key_file, address) as writers,
    ):
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        outside.bind(str(address))
        for _ in range(KILLS):
            writer = writers.start()
            try:
                outside.settimeout(60)
                sent.add(outside.recv(100).decode())
                time.sleep(chance.uniform(0, 0.03))
            finally:
                writers.kill(writer)
            sent |= drain(outside)
            with Ledger.open(
                folder / "ledger", "site-a/ledger", key, lambda: datetime.now(UTC)
            ) as ledger:
                recorded = {record.payload_sha256 for record in ledger.records()}
                assert sent <= recorded, "something left that is not recorded"
            assert all((folder / "ledger/payloads" / digest).exists() for digest in sent)
    verdict = verify_ledger(folder / "ledger", key.public, None)
    assert verdict.intact, str(verdict.broken)
    return sent

"""A full disk stops releases with a clear error, loses nothing, and is recovered from."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.ledger.durable import StorageError
from common.ledger.log import Ledger
from common.ledger.verify import verify_ledger

KEY = SigningKey.from_seed(b"\1" * 32)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A tmpfs of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def open_ledger(disk: Path) -> Ledger:
    return Ledger.open(disk / "ledger", "site-a/ledger", KEY, lambda: datetime.now(UTC))


@pytest.mark.parametrize("payload_bytes", [16, 3000], ids=["records-fill-it", "payloads-fill-it"])
def test_a_full_disk_refuses_the_release_and_recovers(small_disk, payload_bytes):
    sent: list[str] = []
    with open_ledger(small_disk) as ledger:
        with pytest.raises(StorageError, match="the disk is full"):
            release_for_ever(ledger, payload_bytes, sent)
        assert len(sent) > 10, "the disk must have taken some releases first"
        with pytest.raises(StorageError, match="met a disk error"):
            ledger.append("REFUSE", code=1)

    # While the disk is still full the ledger either opens as it was or says why not.
    try:
        open_ledger(small_disk).close()
    except StorageError as error:
        assert "the disk is full" in str(error)  # noqa: PT017 - both outcomes are right
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    with open_ledger(small_disk) as ledger:
        for digest in sent:
            assert ledger.find(digest) is not None
            assert ledger.payload(digest) is not None
        release(ledger, b"there is room again")
    verdict = verify_ledger(small_disk / "ledger", KEY.public, None)
    assert verdict.intact, str(verdict.broken)


def release_for_ever(ledger: Ledger, payload_bytes: int, sent: list[str]) -> None:
    for number in range(100_000):
        payload = number.to_bytes(4, "big") * (payload_bytes // 4)
        release(ledger, payload)
        sent.append(sha256_hex(payload))


def release(ledger: Ledger, payload: bytes) -> None:
    ledger.append(
        "SEND",
        run="run-1",
        round=1,
        record_type="ModelUpdate",
        payload_sha256=ledger.spool(payload),
        bytes=len(payload),
        arrays=(),
        plan_fingerprint="a" * 64,
        policy_sha256="b" * 64,
        phase="train",
        order_sha256="c" * 64,
    )

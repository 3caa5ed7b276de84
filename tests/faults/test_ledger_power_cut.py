"""A power cut at any instant has released nothing that the disk does not record.

A loop-mounted ext4 is shut down under a writing process without flushing its
journal (the ioctl that file system tests use), mounted again and checked. The
control run takes fsync away and must fail: otherwise the test would prove
nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.crypto.identity import SigningKey, write_signing_key
from common.errors import CairnError
from common.ledger.log import Ledger
from common.ledger.verify import verify_ledger
from tests.faults.writer import Writers, drain

EXT4_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING_THE_JOURNAL = 2
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Disk:
    """An ext4 image that can lose its power."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mounted_at = folder / "disk.img", folder / "disk"
        self.mounted_at.mkdir()
        with self.image.open("wb") as image:
            image.truncate(64 << 20)
        _run("mkfs.ext4", "-q", "-F", str(self.image))

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        _run("mount", "-o", "loop", str(self.image), str(self.mounted_at))
        try:
            yield self.mounted_at
        finally:
            _run("umount", str(self.mounted_at))

    def cut_power(self) -> None:
        descriptor = os.open(self.mounted_at, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_JOURNAL))
        finally:
            os.close(descriptor)


@pytest.fixture
def disk(tmp_path) -> Disk:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4 here")
    made = Disk(tmp_path)
    try:
        with made.mounted():
            made.cut_power()
    except (subprocess.CalledProcessError, OSError):
        pytest.skip("loop mounts or the shutdown ioctl are not permitted here")
    return made


def test_nothing_leaves_unrecorded_however_often_the_power_is_cut(disk, tmp_path):
    sent, violations = cut_repeatedly(disk, tmp_path, cuts=200, durable=True)
    assert violations == []
    assert len(sent) >= 200, "every run must have sent something, or nothing was tested"


def test_without_fsync_the_same_test_finds_violations(disk, tmp_path):
    _, violations = cut_repeatedly(disk, tmp_path, cuts=10, durable=False)
    assert violations


def cut_repeatedly(
    disk: Disk, tmp_path: Path, *, cuts: int, durable: bool
) -> tuple[set[str], list[str]]:
    """(digests that left, what the remounted disk does not know of them); stops at the first."""
    key, key_file, address = SigningKey.generate(), tmp_path / "key.pem", tmp_path / "s"
    write_signing_key(key_file, key)
    chance = random.Random(20260102)
    sent: set[str] = set()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        outside.bind(str(address))
        folder = disk.mounted_at / "ledger"
        with Writers(folder, key_file, address, durable=durable) as writers:
            for _ in range(cuts):
                with disk.mounted():
                    writer = writers.start()
                    try:
                        outside.settimeout(60)
                        for _ in range(chance.randint(1, 8)):
                            sent.add(outside.recv(100).decode())
                        disk.cut_power()
                        time.sleep(0.05)
                    finally:
                        writers.kill(writer)
                    sent |= drain(outside)
                with disk.mounted():
                    violations = missing(folder, key, sent)
                if violations:
                    return sent, violations
    return sent, []


def missing(folder: Path, key: SigningKey, sent: set[str]) -> list[str]:
    try:
        with Ledger.open(folder, "site-a/ledger", key, lambda: datetime.now(UTC)) as ledger:
            recorded = {record.payload_sha256 for record in ledger.records()}
            payloads = {digest for digest in sent if ledger.payload(digest) is not None}
        verdict = verify_ledger(folder, key.public, None)
    except CairnError as error:
        return [str(error)]
    found = [f"not recorded: {digest}" for digest in sorted(sent - recorded)]
    found += [f"no payload: {digest}" for digest in sorted(sent - payloads)]
    return found + ([] if verdict.intact else [str(verdict.broken)])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

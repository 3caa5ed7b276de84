"""Files appear under their names whole, several of them with one fsync of their folder."""

from __future__ import annotations

import os

import pytest

from common.ledger import durable
from common.ledger.durable import replace_all_durably

FILES = {"a.envelope": b"one", "a.proof": b"two", "b": b""}


def test_all_files_are_there_and_the_folder_is_made_durable_once_and_last(tmp_path, monkeypatch):
    (tmp_path / "b").write_bytes(b"before")
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    replace_all_durably(tmp_path, FILES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES
    assert [path.rpartition("/")[2] for path in synced[:-1]] == [f".tmp-{name}" for name in FILES]
    assert synced[-1] == str(tmp_path)


def test_a_disk_that_refuses_leaves_whole_files_and_no_temporary(tmp_path, monkeypatch):
    real, written = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        replace_all_durably(tmp_path, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.envelope"]

"""The SuperLink is told of every change of who may connect, and nothing is read where none was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aggregator import service as service_module
from aggregator.admin.enrol import admit, create_federation, revoke
from aggregator.admin.folder import FederationFolder
from aggregator.admin.relays import members
from aggregator.service import LOOK_S, Service
from tests.aggregator.admin.test_enrol import request, settings


class Told:
    """In place of the SuperLink's local calls: who was let in, who was let out."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.away = False

    def __call__(self, *_: object) -> Told:
        return self

    def __enter__(self) -> Told:
        if self.away:
            raise OSError("nobody answers")
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def register(self, name: str, _: object) -> None:
        self.inside.append(name)

    def unregister(self, _: object) -> None:
        self.inside.pop()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(service_module, "SuperLink", told)
    return told


@pytest.fixture
def folder(tmp_path: Path) -> FederationFolder:
    folder = FederationFolder(tmp_path / "fed")
    create_federation(folder, settings(), ["127.0.0.1"])
    return folder


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_each_change_is_told_at_the_next_look(folder, told):
    service = Service(folder)
    assert service.register_sites() == []
    for name in ("site-a", "site-b"):
        admit(folder, request(name))
        assert service.register_sites() == [name]
    revoke(folder, "site-b")
    assert service.register_sites() == []
    assert told.inside == ["site-a"]


def test_where_nothing_changed_nothing_is_read_until_half_a_minute_has_passed(
    folder, told, monkeypatch
):
    clock, reads = Clock(), []
    monkeypatch.setattr(service_module, "time", clock)

    def counted(of: FederationFolder):
        reads.append(clock.now)
        return members(of)

    service = Service(folder, members=counted)
    for _ in range(100):
        service.register_sites()
    assert reads == [1000.0]
    # A folder that was put back from a backup does not say that it changed.
    clock.now += LOOK_S
    service.register_sites()
    assert reads == [1000.0, 1000.0 + LOOK_S]


def test_what_could_not_be_told_is_told_at_the_next_look(folder, told):
    service = Service(folder)
    admit(folder, request("site-a"))
    told.away = True
    with pytest.raises(OSError, match="nobody"):
        service.register_sites()
    told.away = False
    assert service.register_sites() == ["site-a"]


def test_no_two_changes_look_alike(folder):
    seen = {folder.changed}
    for k in range(50):
        admit(folder, request(f"site-{k}"))
        seen.add(folder.changed)
    assert len(seen) == 51


def test_who_did_not_make_the_lock_changes_members_all_the_same(folder, monkeypatch):
    utime = os.utime

    def of_another_user(descriptor: int, ns: object = None) -> None:
        if ns is not None:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        utime(descriptor)

    before = folder.changed
    monkeypatch.setattr(os, "utime", of_another_user)
    admit(folder, request("site-a"))
    assert list(folder.admitted()) == ["site-a"]
    assert folder.changed != before

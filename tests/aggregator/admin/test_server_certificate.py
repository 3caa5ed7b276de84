"""The aggregator's own certificate is renewed in time, and for the same names."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from aggregator.admin import server_certificate as module
from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.server_certificate import (
    ServerCertificate,
    keep_warning,
    renew_server_certificate,
    server_certificate,
)
from common.crypto.certificates import check_pair, read_certificate, read_tls_key
from common.errors import VerificationError

NAMES = ["fed.example.org", "127.0.0.1"]
NOW = datetime.now(UTC)


@pytest.fixture
def folder(tmp_path) -> FederationFolder:
    made = FederationFolder(tmp_path / "fed")
    create_federation(made, FederationSettings(name="x", address="h:1000", port=1000), NAMES)
    return made


def pair_fits(folder: FederationFolder) -> None:
    check_pair(read_tls_key(folder.pki / "server.key"), read_certificate(folder.pki / "server.crt"))


def test_a_young_certificate_stays(folder):
    before = (folder.pki / "server.crt").read_bytes()
    assert renew_server_certificate(folder) is None
    assert (folder.pki / "server.crt").read_bytes() == before


@pytest.mark.parametrize("after_days", [770, 900], ids=["ends-soon", "has-expired"])
def test_an_old_one_is_renewed_for_the_same_names_by_the_same_authority(folder, after_days):
    before = read_certificate(folder.pki / "server.crt")
    later = NOW + timedelta(days=after_days)
    assert renew_server_certificate(folder, later) in (824, 825)
    after = read_certificate(folder.pki / "server.crt")
    assert after.not_valid_after_utc > later + timedelta(days=800)
    after.verify_directly_issued_by(read_certificate(folder.pki / "ca.crt"))
    names = [e.value for e in before.extensions if e.oid.dotted_string == "2.5.29.17"]
    assert names == [e.value for e in after.extensions if e.oid.dotted_string == "2.5.29.17"]
    pair_fits(folder)
    assert (folder.pki / "server.key").stat().st_mode & 0o077 == 0
    assert renew_server_certificate(folder, later) is None


def test_a_renewal_that_was_cut_off_is_done_again(folder):
    old = (folder.pki / "server.crt").read_bytes()
    later = NOW + timedelta(days=800)
    renew_server_certificate(folder, later)
    (folder.pki / "server.crt").write_bytes(old)
    assert renew_server_certificate(folder, NOW) is not None
    pair_fits(folder)


def test_near_the_authoritys_end_it_is_renewed_once(folder):
    late = NOW + timedelta(days=3630)
    assert renew_server_certificate(folder, late) in (18, 19, 20)
    assert renew_server_certificate(folder, late) is None


def test_an_expired_authority_is_said(folder):
    with pytest.raises(VerificationError, match="authority has expired"):
        renew_server_certificate(folder, NOW + timedelta(days=3700))


@pytest.mark.parametrize(
    ("after_days", "says"),
    [
        (700, ""),
        (800, "days: stop `cairn-aggregator up` between two runs and start it again"),
        (830, "ended"),
    ],
)
def test_one_that_runs_out_is_told_with_what_to_do(folder, after_days, says):
    found = server_certificate(folder, NOW + timedelta(days=after_days))
    assert found.days in (824 - after_days, 825 - after_days)
    assert says in found.warning
    assert bool(says) is bool(found.warning)


def test_one_that_ends_with_the_authority_asks_for_a_new_federation(folder):
    ends = read_certificate(folder.pki / "ca.crt").not_valid_after_utc
    renew_server_certificate(folder, ends - timedelta(days=100))
    found = server_certificate(folder, ends - timedelta(days=10))
    assert "make a new federation" in found.warning


def test_an_aggregator_that_runs_for_years_says_so_every_day(folder, monkeypatch):
    stop, said = threading.Event(), []
    days = iter([31, 29, 28])

    def certificate(_):
        left = next(days)
        if left == 28:
            stop.set()
        return ServerCertificate(left, "" if left > 30 else f"ends in {left} days")

    monkeypatch.setattr(module, "server_certificate", certificate)
    keep_warning(folder, stop, said.append, every_s=0.0)
    assert said == ["ends in 29 days", "ends in 28 days"]


def test_a_certificate_that_cannot_be_read_is_said_and_ends_nothing(folder):
    (folder.pki / "server.crt").unlink()
    stop, said = threading.Event(), []

    def say(text: str) -> None:
        said.append(text)
        stop.set()

    keep_warning(folder, stop, say, every_s=0.0)
    assert len(said) == 1
    assert "server.crt" in said[0]

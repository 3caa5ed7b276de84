"""The aggregator's own certificate is renewed in time, and for the same names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.server_certificate import renew_server_certificate
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

"""The sites' TLS certificates: issued at admission, renewed in place, never for another key.

A certificate does not decide who is in the federation (that is the admission,
and its revocation); it decides how long a site may use the desk without being
seen by a person again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from aggregator.admin.folder import AdmittedSite, FederationFolder
from common.crypto.certificates import (
    certificate_to_pem,
    days_left,
    read_certificate,
    read_tls_key,
)
from common.crypto.clients import SITE_DAYS, ClientName, issue_client_certificate, requested_key
from common.enrolment import JoinRequest
from common.errors import InputDataError, VerificationError
from common.ledger.durable import replace_durably

RENEW_BELOW_DAYS = 60


def authority(folder: FederationFolder) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return the authority's key and certificate."""
    return read_tls_key(folder.pki / "ca.key"), read_certificate(folder.pki / "ca.crt")


def issue_to_site(
    folder: FederationFolder, request: JoinRequest, now: datetime | None = None
) -> bytes:
    """Make a new certificate for the key that the site asked with; PEM.

    Raises:
        InputDataError: the request asks for none.
    """
    if request.tls_csr is None:
        raise InputDataError(
            "this site never asked for a certificate",
            field="tls_csr",
            got="nothing",
            advice="Join again with this release: cairn-site join INVITE",
        )
    ca_key, ca_cert = authority(folder)
    key = requested_key(request.tls_csr.encode())
    client = ClientName("site", request.site)
    pem = certificate_to_pem(
        issue_client_certificate(ca_key, ca_cert, key, client, days=SITE_DAYS, now=now)
    )
    site = folder.sites / request.site
    site.mkdir(parents=True, exist_ok=True)
    replace_durably(site / "tls.crt", pem)
    return pem


def certificate_of(site: AdmittedSite) -> x509.Certificate | None:
    """Return the newest certificate of a site, or None if it never asked for one."""
    return _read(site.certificate_file)


def _read(path: Path) -> x509.Certificate | None:
    return read_certificate(path) if path.exists() else None


def valid_certificate(site: AdmittedSite, now: datetime | None = None) -> x509.Certificate:
    """Return the certificate of a site that may use the desk.

    Raises:
        InputDataError: it never asked for one.
        VerificationError: it has expired.
    """
    certificate = certificate_of(site)
    if certificate is None:
        raise InputDataError(
            "this site never asked for a certificate",
            field="tls_csr",
            got="nothing",
            advice="Join again with this release: cairn-site join INVITE",
        )
    if certificate.not_valid_after_utc <= (now or datetime.now(UTC)):
        raise VerificationError(
            "the site's certificate has expired",
            field="certificate",
            expected="one that is still valid",
            got=f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            advice="Ask the coordinator for a new invite and join with it; the keys stay",
        )
    return certificate


def renew(folder: FederationFolder, site: AdmittedSite, now: datetime | None = None) -> bytes:
    """Return a certificate with its full time ahead: the current one while most of it is; PEM.

    Raises:
        InputDataError: the site never asked for one.
        VerificationError: it has expired; then a person has to look again.
    """
    certificate = valid_certificate(site, now)
    if days_left(certificate, now) >= RENEW_BELOW_DAYS:
        return certificate_to_pem(certificate)
    return issue_to_site(folder, site.request, now)

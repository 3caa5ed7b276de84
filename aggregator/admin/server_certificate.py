"""The aggregator's own certificate: renewed when it starts, for the names that it has.

Sites pin the authority and not this certificate, so they notice nothing. The
authority itself is never renewed here: another one is another federation.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from aggregator.admin.certificates import RENEW_BELOW_DAYS, authority
from aggregator.admin.folder import FederationFolder
from common.crypto.certificates import (
    certificate_to_pem,
    check_pair,
    days_left,
    issue_server_certificate,
    read_certificate,
    read_tls_key,
    write_tls_key,
)
from common.errors import InputDataError, VerificationError
from common.ledger.durable import replace_durably


def renew_server_certificate(folder: FederationFolder, now: datetime | None = None) -> int | None:
    """Renew the server's certificate when it ends within two months, or does not fit its key.

    Returns:
        Days that the new certificate is good for; None when the old one stays.

    Raises:
        VerificationError: the authority itself has expired.
        InputDataError: a certificate or a key is missing or malformed.
    """
    now = now or datetime.now(UTC)
    ca_key, ca_certificate = authority(folder)
    if ca_certificate.not_valid_after_utc <= now:
        raise VerificationError(
            "the federation's authority has expired",
            field=str(folder.pki / "ca.crt"),
            expected="a certificate that is still valid",
            got=f"one that expired on {ca_certificate.not_valid_after_utc:%Y-%m-%d}",
            advice="Check this machine's clock; otherwise make a new federation and invite anew",
        )
    own = read_certificate(folder.pki / "server.crt")
    if _fits(folder, own) and days_left(own, now) >= _threshold(ca_certificate, own):
        return None
    key, certificate = issue_server_certificate(ca_key, ca_certificate, _names(own), now=now)
    # First the key: whoever is interrupted in between finds a pair that does not fit.
    fresh = folder.pki / "server.key.new"
    fresh.unlink(missing_ok=True)
    write_tls_key(fresh, key)
    fresh.replace(folder.pki / "server.key")
    replace_durably(folder.pki / "server.crt", certificate_to_pem(certificate))
    return days_left(certificate, now)


def _fits(folder: FederationFolder, own: x509.Certificate) -> bool:
    try:
        check_pair(read_tls_key(folder.pki / "server.key"), own)
    except InputDataError:
        return False
    return True


def _threshold(ca_certificate: x509.Certificate, own: x509.Certificate) -> int:
    """None outlives the authority: one that ends with it cannot be renewed any further."""
    ends_together = own.not_valid_after_utc >= ca_certificate.not_valid_after_utc
    return 0 if ends_together else RENEW_BELOW_DAYS


def _names(own: x509.Certificate) -> list[str]:
    """The host names and addresses that a certificate is for."""
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]

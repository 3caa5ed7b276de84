"""The aggregator's own certificate: renewed when it starts, for the names that it has.

Sites pin the authority and not this certificate, so they notice nothing. What runs
has read it once: an aggregator that is never started again says in time that it
should be. The authority itself is never renewed here: another one is another federation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event

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

WARN_BELOW_DAYS = 30
LOOK_S = 24 * 3600.0


@dataclass(frozen=True)
class ServerCertificate:
    """The time for which the aggregator can still be connected to.

    Attributes:
        days: until its certificate expires; negative: it has.
        warning: what to do about it; empty while there is time.
    """

    days: int
    warning: str = ""


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
    present = read_certificate(folder.pki / "server.crt")
    if _fits(folder, present) and days_left(present, now) >= _threshold(ca_certificate, present):
        return None
    key, certificate = issue_server_certificate(ca_key, ca_certificate, _names(present), now=now)
    # First the key: whoever is interrupted in between finds a pair that does not fit.
    fresh = folder.pki / "server.key.new"
    fresh.unlink(missing_ok=True)
    write_tls_key(fresh, key)
    fresh.replace(folder.pki / "server.key")
    replace_durably(folder.pki / "server.crt", certificate_to_pem(certificate))
    return days_left(certificate, now)


def server_certificate(folder: FederationFolder, now: datetime | None = None) -> ServerCertificate:
    """Look how the certificate stands that a running aggregator has.

    Raises:
        InputDataError: it is missing or malformed.
    """
    certificate = read_certificate(folder.pki / "server.crt")
    days = days_left(certificate, now)
    if days >= WARN_BELOW_DAYS:
        return ServerCertificate(days)
    says = f"The aggregator's certificate ends in {days} days"
    if days < 0:
        says = f"The aggregator's certificate ended {-days} days ago"
    if _threshold(read_certificate(folder.pki / "ca.crt"), certificate) == 0:
        return ServerCertificate(
            days, f"{says}, with the federation's authority: make a new federation and invite anew."
        )
    return ServerCertificate(
        days,
        f"{says}: stop `cairn-aggregator up` between two runs and start it again, which renews it; "
        "sites reconnect by themselves.",
    )


def keep_warning(
    folder: FederationFolder, stop: Event, say: Callable[[str], None], every_s: float = LOOK_S
) -> None:
    """Until ``stop`` is set: say once a day that the certificate ends, when it soon does."""
    while not stop.wait(every_s):
        try:
            warning = server_certificate(folder).warning
        except InputDataError as error:
            warning = str(error)
        if warning:
            say(warning)


def _fits(folder: FederationFolder, certificate: x509.Certificate) -> bool:
    try:
        check_pair(read_tls_key(folder.pki / "server.key"), certificate)
    except InputDataError:
        return False
    return True


def _threshold(ca_certificate: x509.Certificate, certificate: x509.Certificate) -> int:
    """None outlives the authority: one that ends with it cannot be renewed any further."""
    ends_together = certificate.not_valid_after_utc >= ca_certificate.not_valid_after_utc
    return 0 if ends_together else RENEW_BELOW_DAYS


def _names(certificate: x509.Certificate) -> list[str]:
    """Return the host names and addresses that a certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]

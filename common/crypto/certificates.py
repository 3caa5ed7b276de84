"""The federation's own TLS authority, and the node keys that couriers authenticate with.

The coordinator's authority signs one server certificate; sites pin the
authority's certificate, so no public authority and no name service is trusted.
Certificates carry what strict TLS clients ask for (SAN, key usage, key
identifiers). Private keys leave here only into files of mode 0600.

Source: RFC 5280; node keys as Flower 1.41 reads them (NIST curve, OpenSSH form).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.arrivals.boundary import any_failure_is
from common.crypto.files import (
    MAX_KEY_FILE_BYTES,
    read_public,
    read_secret,
    write_public,
    write_secret,
)
from common.errors import InputDataError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
_CLOCK_SKEW = timedelta(minutes=10)  # a site's clock may run behind the coordinator's
_MOST_PARTS = 40
_DNS_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_AUTHORITY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


def create_authority(
    name: str, *, days: int = AUTHORITY_DAYS, now: datetime | None = None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Make a new certificate authority (EC P-256) that may sign servers and nothing below them.

    Args:
        name: its common name, at most 64 plain characters.
        days: how long it is valid.
        now: start of validity, aware; the current time when omitted.

    Raises:
        InputDataError: a name or validity that no certificate can have.
    """
    if _AUTHORITY_NAME.fullmatch(name) is None:
        raise InputDataError(
            "not a name for an authority",
            field="name",
            expected="1 to 64 letters, digits, spaces, dots, hyphens",
            got=f"{len(name)} other characters",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        certificate_builder(key.public_key(), subject, subject, days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    return key, builder.sign(key, hashes.SHA256())


def issue_server_certificate(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_cert: x509.Certificate,
    host_names: Sequence[str],
    *,
    days: int = SERVER_DAYS,
    now: datetime | None = None,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return a server key (EC P-256) and its certificate, good for exactly ``host_names``.

    Args:
        ca_key: the authority's key.
        ca_cert: its certificate; the server's never outlives it.
        host_names: DNS names and IP addresses by which sites reach the server.
        days: how long it is valid.
        now: start of validity, aware; the current time when omitted.

    Raises:
        InputDataError: no host name, one that is neither name nor address, or a
            key that does not belong to the authority's certificate.
    """
    check_pair(ca_key, ca_cert)
    names = [_general_name(host) for host in host_names]
    if not names:
        raise InputDataError(
            "a server needs a name", field="host_names", expected="at least one", got="none"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host_names[0][:64])])
    builder = (
        certificate_builder(
            key.public_key(), subject, ca_cert.subject, days, now, ca_cert.not_valid_after_utc
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    return key, builder.sign(ca_key, hashes.SHA256())


def check_pair(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    """Return only if the certificate is for the key.

    Raises:
        InputDataError: it is not.
    """
    if certificate.public_key() != key.public_key():
        raise InputDataError(
            "a key and a certificate do not belong together",
            expected="one pair",
            got="halves of two pairs",
        )


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> int:
    """Whole days until a certificate expires; negative once it has.

    Args:
        certificate: any.
        now: aware; the current time when omitted.
    """
    return (certificate.not_valid_after_utc - (now or datetime.now(UTC))).days


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the DER form, 64 hex digits: what an invite pins."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def certificate_to_pem(certificate: x509.Certificate) -> bytes:
    """PEM text of a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def parse_certificate(data: bytes) -> x509.Certificate:
    """One certificate in PEM.

    Raises:
        InputDataError: none, or more than one.
    """
    if len(data) > MAX_KEY_FILE_BYTES:
        raise _not_a("certificate", f"at most {MAX_KEY_FILE_BYTES} bytes", got=f"{len(data)}")
    with any_failure_is(_not_a("certificate", "one PEM certificate")):
        certificates = x509.load_pem_x509_certificates(data)
    if len(certificates) != 1:
        raise _not_a("certificate", "one PEM certificate", got=f"{len(certificates)}")
    _require_readable(certificates[0])
    return certificates[0]


def _require_readable(certificate: x509.Certificate) -> None:
    """Read every part now: a part that is none would otherwise fail whoever asks for it first."""
    with any_failure_is(_not_a("certificate", "one whose every part can be read")):
        parts: tuple[object, ...] = (
            certificate.version,
            certificate.serial_number,
            certificate.subject,
            certificate.issuer,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            certificate.signature_hash_algorithm,
            certificate.public_key(),
            *certificate.extensions,
        )
    if certificate.serial_number <= 0:
        raise _not_a("certificate", "one with a positive serial number", got="another number")
    if len(parts) > _MOST_PARTS:
        raise _not_a("certificate", f"at most {_MOST_PARTS} parts", got=f"{len(parts)}")


def write_certificate(path: Path, certificate: x509.Certificate) -> None:
    """Write a certificate in PEM, never over an existing file.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_public(path, certificate_to_pem(certificate))


def read_certificate(path: Path) -> x509.Certificate:
    """Read one PEM certificate.

    Raises:
        InputDataError: absent or not one certificate.
    """
    return parse_certificate(read_public(path))


def write_tls_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write an authority's or server's key: PKCS #8 PEM, mode 0600, never over a file.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret(path, pem)


def read_tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read what ``write_tls_key`` wrote.

    Raises:
        InputDataError: absent, open to group or others, or not such a key.
    """
    data = read_secret(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_a("TLS key", "an unencrypted EC key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _not_a("TLS key", "an unencrypted EC key in PEM", got="a key of another kind")
    return key


def generate_node_key() -> ec.EllipticCurvePrivateKey:
    """Return a courier's node key: EC P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def node_public_line(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> str:
    """Write the public half as a line of OpenSSH, ``ecdsa-sha2-nistp384 AAAA…``, uncommented."""
    public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey) else key
    return public.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode("ascii")


def parse_node_public_key(text: str) -> ec.EllipticCurvePublicKey:
    """Read one OpenSSH line; a comment after the key is let pass.

    Raises:
        InputDataError: not one P-384 key.
    """
    expected = "one line 'ecdsa-sha2-nistp384 ...'"
    line = text.strip()
    if "\n" in line:
        raise _not_a("node key", expected, got="several lines")
    with any_failure_is(_not_a("node key", expected)):
        key = serialization.load_ssh_public_key(line.encode("utf-8"))
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _not_a("node key", expected, got="a key of another kind")
    return key


def write_node_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write the private half in OpenSSH form, mode 0600, and ``<path>.pub`` beside it.

    Raises:
        InputDataError: one of the files exists already, or cannot be written.
    """
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    write_secret(path, private)
    write_public(path.with_name(path.name + ".pub"), f"{node_public_line(key)}\n".encode("ascii"))


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the private half that ``write_node_key`` wrote.

    Raises:
        InputDataError: absent, open to group or others, or not a P-384 key.
    """
    data = read_secret(path)
    expected = "an unencrypted EC P-384 key in OpenSSH form"
    try:
        key = serialization.load_ssh_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_a("node key", expected) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _not_a("node key", expected, got="a key of another kind")
    return key


def certificate_builder(
    public_key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    days: int,
    now: datetime | None,
    no_later_than: datetime | None = None,
) -> x509.CertificateBuilder:
    """Begin a certificate as all of a federation begin, with a serial number nobody can guess.

    Raises:
        InputDataError: an impossible validity, or an authority that has expired.
    """
    start = now or datetime.now(UTC)
    if start.tzinfo is None or not 1 <= days <= 36_500:
        raise InputDataError(
            "not a validity for a certificate",
            field="days",
            expected="1 to 36500 from an aware time",
            got=f"{days}",
        )
    end = start + timedelta(days=days)
    if no_later_than is not None:
        end = min(end, no_later_than)
        if end <= start:
            raise InputDataError(
                "the authority's certificate has expired",
                expected="one that is still valid",
                got=f"expired on {no_later_than:%Y-%m-%d}",
            )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """For an authority, or for a server or client."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        labels = host.split(".")
        numeric = labels[-1].isdigit()  # "10.0.0" is a broken address, not a name
        if len(host) > 253 or numeric or not all(_DNS_LABEL.fullmatch(label) for label in labels):
            raise InputDataError(
                "not a host name",
                field="host_names",
                expected="a DNS name or an IP address, without port or wildcard",
                got="another text",
            ) from None
        return x509.DNSName(host.lower())


def _not_a(what: str, expected: str, got: str = "another text") -> InputDataError:
    return InputDataError(f"not a {what}", expected=expected, got=got)

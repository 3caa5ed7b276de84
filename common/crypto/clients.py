"""Client certificates: who may speak to the desk, and as what.

The role and the name stand in one URI of the certificate (``urn:cairn:ROLE:NAME``)
and nowhere else; a certificate without exactly one is nobody's. Private keys are
made by their owners: the authority sees a signing request, which proves that its
sender holds the key.

Source: RFC 5280, RFC 2986.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.arrivals.boundary import any_failure_is
from common.crypto.certificates import certificate_builder, check_pair, key_usage
from common.errors import InputDataError, VerificationError

Role = Literal["coordinator", "site"]
SITE_DAYS = 90
COORDINATOR_DAYS = 365
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_URN = re.compile(r"urn:cairn:([a-z]+):([a-z0-9-]+)")


@dataclass(frozen=True)
class ClientName:
    """Whom a client certificate names."""

    role: Role
    name: str

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise InputDataError(
                f"not a name for a {self.role}",
                field="name",
                expected="1 to 32 lower-case letters, digits and hyphens",
                got=f"{len(self.name)} characters",
            )

    @property
    def urn(self) -> str:
        """As the certificate says it."""
        return f"urn:cairn:{self.role}:{self.name}"


def generate_client_key() -> ec.EllipticCurvePrivateKey:
    """Return a TLS client key (EC P-256)."""
    return ec.generate_private_key(ec.SECP256R1())


def create_signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """PEM of a request for a client certificate, signed with the key itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def requested_key(signing_request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a signing request, whose sender holds the private half.

    What else the request asks for is ignored: the authority decides it.

    Raises:
        InputDataError: not a request for an EC P-256 key.
        VerificationError: not signed with its own key.
    """
    expected = "a PEM request for an EC P-256 key"
    unreadable = InputDataError(
        "not a signing request", field="tls_csr", expected=expected, got="another text"
    )
    with any_failure_is(unreadable):
        request = x509.load_pem_x509_csr(signing_request)
        key = request.public_key()
        honest = request.is_signature_valid
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputDataError(
            "not a signing request", field="tls_csr", expected=expected, got="a key of another kind"
        )
    if not honest:
        raise VerificationError(
            "a signing request is not its sender's",
            field="tls_csr",
            expected="signed with the key that it names",
            got="another signature",
        )
    return key


def issue_client_certificate(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_cert: x509.Certificate,
    public_key: ec.EllipticCurvePublicKey,
    client: ClientName,
    *,
    days: int,
    now: datetime | None = None,
) -> x509.Certificate:
    """Return a certificate with which ``client`` may open connections, and nothing else.

    Args:
        ca_key: the authority's key.
        ca_cert: its certificate; the client's never outlives it.
        public_key: the client's.
        client: role and name.
        days: how long it is valid.
        now: start of validity, aware; the current time when omitted.

    Raises:
        InputDataError: a key that does not belong to the authority's certificate.
    """
    check_pair(ca_key, ca_cert)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, client.name)])
    end = ca_cert.not_valid_after_utc
    builder = (
        certificate_builder(public_key, subject, ca_cert.subject, days, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(client.urn)]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    return builder.sign(ca_key, hashes.SHA256())


def client_of(certificate: x509.Certificate) -> ClientName:
    """Whom a certificate names. Says nothing about who signed it.

    Raises:
        VerificationError: nobody of a federation.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    match = _URN.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is not None:
        for role in get_args(Role):
            if match[1] == role and _NAME.fullmatch(match[2]):
                return ClientName(role, match[2])
    raise VerificationError(
        "not a client certificate of a federation",
        field="certificate",
        expected="one URI urn:cairn:ROLE:NAME",
        got=f"{len(uris)} other names",
    )


def check_client_certificate(
    certificate: x509.Certificate,
    ca_cert: x509.Certificate,
    key: ec.EllipticCurvePublicKey,
    client: ClientName,
) -> None:
    """Return only if ``certificate`` is by this authority, for this key and this client.

    Raises:
        VerificationError: it is not.
    """
    try:
        certificate.verify_directly_issued_by(ca_cert)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise VerificationError(
            "a certificate is not the federation's",
            field="certificate",
            expected="signed by the authority of the invite",
            got="another signature",
        ) from error
    named = client_of(certificate)
    if certificate.public_key() != key or named != client:
        raise VerificationError(
            "a certificate is for somebody else",
            field="certificate",
            expected=f"our own key, as {client.urn}",
            got=named.urn if named != client else "another key",
        )

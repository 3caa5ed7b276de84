"""Signatures of sites on what they ask at the desk, and the desk's check of them.

A signature names the federation, the method, the site, a moment and a nonce, so
that it serves no other purpose and no second time. Signing proves who asks;
whether they may is for the desk to decide.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from common.canonical import canonical_json, sha256_hex
from common.crypto.identity import PublicKey, SigningKey
from common.desk import desk_pb2
from common.errors import VerificationError

CONTEXT = b"cairn desk request v1\n"
NONCE_BYTES = 16
LARGEST_SKEW_MS = 120_000
_ECDSA = ec.ECDSA(hashes.SHA256())
_ECDSA_FIXED = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
"""RFC 6979: the same request, the same signature, and nothing that a signer could choose."""


class RequestSigner(Protocol):
    """A key that signs requests, and which of the site's keys it is."""

    kind: desk_pb2.RequestKey.ValueType

    def sign(self, data: bytes) -> bytes:
        """Return the signature over ``data``."""


@dataclass(frozen=True)
class LedgerSigner:
    """The site's ledger key; good for every request."""

    secret: SigningKey
    kind = desk_pb2.REQUEST_KEY_LEDGER

    def sign(self, data: bytes) -> bytes:
        """Ed25519, 64 bytes."""
        return self.secret.sign(data)


@dataclass(frozen=True)
class TlsSigner:
    """The key of the current certificate, which the courier holds.

    Good for ``Renew`` and for carrying sealed keys, which the worker has signed itself.
    """

    secret: ec.EllipticCurvePrivateKey
    kind = desk_pb2.REQUEST_KEY_TLS

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        return self.secret.sign(data, _ECDSA_FIXED)


def now_ms() -> int:
    """Read this machine's clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class _Moments:
    """Moments of one process, no two alike: two equal requests of one would be one to the desk."""

    _AHEAD_MS: Final = 1000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """Return this millisecond, or the first one after it that was not given yet."""
        with self._lock:
            now = now_ms()
            # Further ahead is a clock that was put back, and not many requests at once.
            ahead = self._last - now
            self._last = self._last + 1 if 0 <= ahead < self._AHEAD_MS else now
            return self._last


_MOMENTS = _Moments()


def sign_request(
    federation: str,
    method: str,
    site: str,
    body: bytes,
    signer: RequestSigner,
    *,
    unix_ms: int | None = None,
) -> desk_pb2.SignedRequest:
    """Return a request that only this site can make, now.

    Args:
        federation: its name.
        method: of the service, e.g. ``Renew``.
        site: our name.
        body: the serialised message that the method takes.
        signer: one of the site's keys.
        unix_ms: the moment; when omitted the current one, or one just after it.
    """
    moment = _MOMENTS.next() if unix_ms is None else unix_ms
    # Drawn from what is asked and when, so that it is new each time and yet nobody's choice.
    drawn = {"body_sha256": sha256_hex(body), "method": method, "site": site}
    nonce = bytes.fromhex(sha256_hex(canonical_json(drawn | {"unix_ms": str(moment)})))
    request = desk_pb2.SignedRequest(
        site=site,
        body=body,
        unix_ms=moment,
        nonce=nonce[:NONCE_BYTES],
        key=signer.kind,
    )
    request.signature = signer.sign(signed_bytes(federation, method, request))
    return request


def signed_bytes(federation: str, method: str, request: desk_pb2.SignedRequest) -> bytes:
    """Return the bytes that the signature of ``request`` is over."""
    return CONTEXT + canonical_json(
        {
            "body_sha256": sha256_hex(request.body),
            "federation": federation,
            "method": method,
            "nonce": request.nonce.hex(),
            "site": request.site,
            "unix_ms": str(request.unix_ms),
        }
    )


def check_signature(
    federation: str,
    method: str,
    request: desk_pb2.SignedRequest,
    key: PublicKey | ec.EllipticCurvePublicKey,
    *,
    at_ms: int,
) -> None:
    """Return only if ``key``'s holder has signed ``request`` for this method, about now.

    Raises:
        VerificationError: another key, method or content; or clocks that differ.
    """
    if len(request.nonce) != NONCE_BYTES:
        raise VerificationError(
            "a request without a nonce",
            field="nonce",
            expected=f"{NONCE_BYTES} bytes",
            got=f"{len(request.nonce)} bytes",
        )
    data = signed_bytes(federation, method, request)
    if isinstance(key, PublicKey):
        key.verify(request.signature, data)
    else:
        try:
            key.verify(request.signature, data, _ECDSA)
        except InvalidSignature as error:
            raise VerificationError(
                "a signature does not hold",
                field="signature",
                expected="one made with the key of the site's certificate",
                got="another signature, or other data",
            ) from error
    ahead = request.unix_ms - at_ms
    if abs(ahead) > LARGEST_SKEW_MS:
        raise VerificationError(
            "the clocks of site and aggregator differ",
            field="unix_ms",
            expected=f"within {LARGEST_SKEW_MS // 1000} s of the aggregator's clock",
            got=f"{abs(ahead) // 1000} s {'ahead' if ahead > 0 else 'behind'}",
            advice="Set this machine's clock (NTP)",
        )

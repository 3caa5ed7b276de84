"""The two small files by which a site joins: an invite down, a request up.

An invite tells a site whom to trust, and may hold a token that lets one set of
keys in, once. A request holds only public keys and a count, signed by the site's
ledger key; the private halves are made at the site and stay there.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from common.arrivals.files import read_bounded
from common.arrivals.texts import json_of, toml_of
from common.canonical import canonical_json, sha256_hex
from common.crypto.identity import PublicKey, SigningKey
from common.errors import InputDataError, VerificationError
from common.settings import describe_validation
from common.wire.bounds import MAX_IMAGES
from common.wire.records import Digest, FederationName, SiteName

Address = Annotated[str, Field(pattern=r"^[^\s/]{1,255}:[0-9]{1,5}$")]
REQUEST_CONTEXT = b"cairn join request v1\n"
Images = Annotated[int, Field(ge=0, le=MAX_IMAGES)]
MAX_REQUEST_BYTES = 16_384
MAX_INVITE_BYTES = 65_536


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is absent: TOML has no null, and old files stay as they are."""
        whole: dict[str, object] = serialize(self)
        return {name: value for name, value in whole.items() if value is not None}


class Invite(_Document):
    """A coordinator's invitation of one site.

    Attributes:
        federation: its name.
        site: the name that the site will go by.
        address: host:port of the aggregator's Fleet API, or of the relay's.
        relay: that the site will be behind; absent: none.
        ca_certificate: PEM of the federation's own authority.
        ca_sha256: digest of that certificate (DER), to be compared by telephone.
        witness_key: public key with which the aggregator signs orders and receipts.
        app_sha256: digest of the only Flower app that this site's courier will serve.
        enrolment: host:port where the request may be sent; absent: by mail only.
        token: lets one set of keys in under this name, once; only its digest is kept.
        expires: when the token ends, ISO 8601, UTC.
    """

    v: Literal[1] = 1
    federation: FederationName
    site: SiteName
    address: Address
    ca_certificate: Annotated[str, Field(max_length=20_000)]
    ca_sha256: Digest
    witness_key: Annotated[str, Field(max_length=200)]
    app_sha256: Digest
    enrolment: Address | None = None
    token: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{43}$")] = Field(None, repr=False)
    expires: Annotated[str, Field(max_length=40)] | None = None
    relay: SiteName | None = None

    @model_validator(mode="after")
    def _all_or_nothing(self) -> Self:
        present = [v is not None for v in (self.enrolment, self.token, self.expires)]
        if any(present) and not all(present):
            raise ValueError("enrolment, token and expires together, or none of them")
        return self

    def expired(self, now: datetime) -> bool:
        """Tell whether the token's time is over.

        Raises:
            InputDataError: ``expires`` is no time.
        """
        return self.expires is not None and parse_time(self.expires) <= now


class JoinRequest(_Document):
    """A site's answer to an invite: public keys, and how many images it has.

    Attributes:
        node_key: OpenSSH line of the key that authenticates the courier.
        ledger_key: public key that signs the site's checkpoints.
        sealing_key: public key that other sites seal the federation key to.
        tls_csr: PEM request for a client certificate.
        images: cases or slides in the site's data folder when it joined, counted and not
            opened; what it counts as in the average unless the coordinator says otherwise.
        signature: by the ledger key over everything else, hex.
    """

    v: Literal[1] = 1
    federation: FederationName
    site: SiteName
    node_key: Annotated[str, Field(max_length=2000)]
    ledger_key: Annotated[str, Field(max_length=200)]
    sealing_key: Annotated[str, Field(max_length=200)] | None = None
    tls_csr: Annotated[str, Field(max_length=4000)] | None = None
    images: Images | None = None
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")] | None = None

    def _signed_bytes(self) -> bytes:
        return REQUEST_CONTEXT + canonical_json(self.model_dump(exclude={"signature"}))

    def signed(self, key: SigningKey) -> JoinRequest:
        """Return the same with the ledger key's signature."""
        return self.model_copy(update={"signature": key.sign(self._signed_bytes()).hex()})

    def verify(self) -> None:
        """Return only if the ledger key that it names has signed it.

        Raises:
            VerificationError: it has not.
            InputDataError: the ledger key is no key.
        """
        if self.signature is None:
            raise VerificationError(
                "a join request without a signature",
                field="signature",
                expected="one by the ledger key that the request names",
                got="nothing",
                advice="Run `cairn-site join` of this release again",
            )
        PublicKey.parse(self.ledger_key).verify(bytes.fromhex(self.signature), self._signed_bytes())

    @property
    def digest(self) -> str:
        """SHA-256 that names this set of keys."""
        return sha256_hex(canonical_json(self.model_dump()))

    def to_json(self) -> bytes:
        """Return the file."""
        value = self.model_dump(mode="json")
        return (json.dumps(value, indent=2) + "\n").encode()


def parse_time(text: str) -> datetime:
    """Return an aware time from ISO 8601.

    Raises:
        InputDataError: another text, or a time without its zone.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InputDataError(
            "not a time",
            field="expires",
            expected="ISO 8601 with a zone, e.g. 2026-01-31T12:00:00+00:00",
            got=f"{len(text)} other characters",
        )
    return time.astimezone(UTC)


def read_invite(path: Path) -> Invite:
    """Read an invite file (TOML).

    Raises:
        InputDataError: unreadable or not valid.
    """
    try:
        return Invite.model_validate(toml_of(read_bounded(path, MAX_INVITE_BYTES, "the invite")))
    except (OSError, ValueError) as error:
        raise _explain(error, "the invite", str(path)) from error


def parse_request(data: bytes, source: str = "request.json") -> JoinRequest:
    """Return a join request from its JSON bytes.

    Raises:
        InputDataError: not valid.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise InputDataError(
            "the join request is not valid",
            field=source,
            expected=f"at most {MAX_REQUEST_BYTES} bytes",
            got=f"{len(data)} bytes",
        )
    try:
        return JoinRequest.model_validate(json_of(data))
    except ValueError as error:
        raise _explain(error, "the join request", source) from error


def read_request(path: Path) -> JoinRequest:
    """Read a join request (JSON).

    Raises:
        InputDataError: unreadable or not valid.
    """
    try:
        data = read_bounded(path, MAX_REQUEST_BYTES, "the join request")
    except OSError as error:
        raise _explain(error, "the join request", str(path)) from error
    return parse_request(data, str(path))


def _explain(error: Exception, what: str, source: str) -> InputDataError:
    if isinstance(error, ValidationError):
        field, expected, got = describe_validation(error)
        return InputDataError(f"{what} is not valid", field=field, expected=expected, got=got)
    got = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return InputDataError(
        f"cannot read {what}", field=source, got=got, advice="Ask the coordinator for a new one"
    )

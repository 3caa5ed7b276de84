"""Coordinators on other machines: one file per person, withdrawn by name.

A credential is a client certificate of the federation's own authority, with what
is needed to use it. Being signed is not enough: the desk takes only certificates
that are on this list, so a withdrawn one is refused from the next request on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives import serialization
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aggregator.admin.certificates import authority
from aggregator.admin.folder import FederationFolder
from aggregator.admin.toml import as_toml
from common.arrivals.texts import toml_of
from common.crypto.certificates import (
    certificate_fingerprint,
    certificate_to_pem,
    parse_certificate,
    read_certificate,
    read_tls_key,
)
from common.crypto.clients import (
    COORDINATOR_DAYS,
    ClientName,
    client_of,
    create_signing_request,
    generate_client_key,
    issue_client_certificate,
    requested_key,
)
from common.crypto.files import read_secret, write_secret
from common.enrolment import Address
from common.errors import InputDataError, RefusedError
from common.ledger.durable import replace_durably
from common.settings import describe_validation
from common.wire.records import FederationName

FIRST_COORDINATOR = "coordinator"


class Credential(BaseModel):
    """One file, mode 0600.

    Attributes:
        name: the coordinator's.
        address: host:port of the desk.
        certificate: PEM, by the federation's authority.
        private_key: PEM; absent when the key never left its owner's machine, where it
            lies beside this file with the ending ``.key``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    federation: FederationName
    name: str
    address: Address
    ca_certificate: Annotated[str, Field(max_length=20_000)]
    certificate: Annotated[str, Field(max_length=20_000)]
    private_key: Annotated[str | None, Field(max_length=20_000)] = Field(None, repr=False)


def issue_credential(
    folder: FederationFolder, name: str, signing_request: bytes | None = None
) -> Credential:
    """Let somebody coordinate; an earlier credential of the same name ends.

    Args:
        folder: the federation's.
        name: of the person.
        signing_request: PEM, if the key is and stays the person's own.

    Raises:
        InputDataError: not a name, or not a signing request.
    """
    settings, client = folder.settings(), ClientName("coordinator", name)
    pem: str | None = None
    if signing_request is None:
        key = generate_client_key()
        public = key.public_key()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii")
    else:
        public = requested_key(signing_request)
    ca_key, ca_cert = authority(folder)
    certificate = issue_client_certificate(ca_key, ca_cert, public, client, days=COORDINATOR_DAYS)
    folder.desk.mkdir(mode=0o700, exist_ok=True)
    with folder.locked():
        replace_durably(_file(folder, name), certificate_to_pem(certificate))
    return Credential(
        federation=settings.name,
        name=name,
        address=settings.public_desk,
        ca_certificate=certificate_to_pem(ca_cert).decode("ascii"),
        certificate=certificate_to_pem(certificate).decode("ascii"),
        private_key=pem,
    )


def coordinators(folder: FederationFolder) -> list[str]:
    """Names of those who may use the desk."""
    return sorted(path.stem for path in folder.desk.glob("*.crt"))


def withdraw_credential(folder: FederationFolder, name: str) -> None:
    """End a coordinator's access, from the next request on.

    Raises:
        InputDataError: no such coordinator.
    """
    with folder.locked():
        credentials = coordinators(folder)
        if name not in credentials:
            raise InputDataError(
                "no such coordinator",
                field="name",
                expected=", ".join(credentials) or "a coordinator; there is none",
                got=name,
            )
        _file(folder, name).rename(folder.desk / f"{name}.withdrawn")


def check_coordinator(folder: FederationFolder, certificate: bytes) -> str:
    """Name the owner of a certificate; TLS has shown that the authority signed it.

    Args:
        folder: the federation's.
        certificate: PEM, as the connection presented it.

    Returns:
        The coordinator's name.

    Raises:
        RefusedError: a site's, or one that was withdrawn or replaced.
        VerificationError: nobody's.
    """
    presented = parse_certificate(certificate)
    client = client_of(presented)
    if client.role != "coordinator":
        raise RefusedError(
            "this desk is for coordinators",
            field="certificate",
            expected="a coordinator's",
            got=f"a {client.role}'s",
            advice="Ask who keeps the federation: cairn-aggregator coordinator NAME -o FILE",
        )
    path = _file(folder, client.name)
    listed = certificate_fingerprint(read_certificate(path)) if path.exists() else ""
    if certificate_fingerprint(presented) != listed:
        raise RefusedError(
            "this credential was withdrawn or replaced",
            field="certificate",
            expected=f"the one last issued to {client.name}",
            got="another one",
            advice="Ask who keeps the federation: cairn-aggregator coordinator NAME -o FILE",
        )
    return client.name


def write_credential(path: Path, credential: Credential) -> None:
    """Write a credential, mode 0600, never over an existing file.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_secret(path, as_toml(credential.model_dump(exclude_none=True), multiline=True))


def read_credential(path: Path) -> Credential:
    """Read a credential, and the key beside it if the file holds none.

    Raises:
        InputDataError: absent, open to group or others, or not a credential.
    """
    data = read_secret(path)
    try:
        credential = Credential.model_validate(toml_of(data))
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "the credential is not valid", field=field, expected=expected, got=got
        ) from error
    except ValueError as error:
        raise InputDataError(
            "the credential is not TOML", field=str(path), got=type(error).__name__
        ) from error
    if credential.private_key is not None:
        return credential
    key_file = path.with_suffix(".key")
    read_tls_key(key_file)  # its mode and kind; the PEM itself is what TLS wants
    key = read_secret(key_file).decode("ascii")
    return credential.model_copy(update={"private_key": key})


@dataclass(frozen=True)
class OwnRequest:
    """A request of somebody who does not want to be handed a private key.

    Attributes:
        key: file with the private key; stays.
        signing_request: file to send.
    """

    key: Path
    signing_request: Path


def make_signing_request(path: Path, name: str) -> OwnRequest:
    """Make a key and a signing request: ``path`` and, beside it, the ``.key``.

    Raises:
        InputDataError: one of the files exists already, or not a name.
    """
    client, key = ClientName("coordinator", name), generate_client_key()
    made = OwnRequest(path.with_suffix(".key"), path)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret(made.key, pem)
    replace_durably(path, create_signing_request(key, client.name))
    return made


def _file(folder: FederationFolder, name: str) -> Path:
    return folder.desk / f"{name}.crt"

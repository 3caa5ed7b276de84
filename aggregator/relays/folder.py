"""A relay's folder: its file unpacked as Flower's programs want it, and what it keeps.

It has the shape of a federation's, so that the same SuperLink is started from it; there is
no authority, no witness key and no run in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.relays import Member, RelayFile, read_relay_file, write_relay_file
from aggregator.admin.toml import as_toml
from common.crypto.certificates import read_node_key
from common.crypto.files import write_secret
from common.crypto.identity import SigningKey, read_signing_key
from common.enrolment import Address
from common.errors import InputDataError, InternalError
from common.ledger.durable import replace_durably

RELAY_FILE: Final = "relay.toml"


class _Member(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(max_length=32)]
    node_key: Annotated[str, Field(max_length=500)]
    revoked: bool


_MEMBERS = TypeAdapter(list[_Member])


@dataclass(frozen=True)
class RelayFolder:
    """Paths below one relay's folder."""

    root: Path

    @property
    def is_one(self) -> bool:
        """Tell whether this is a relay's folder."""
        return (self.root / RELAY_FILE).exists()

    @property
    def federation(self) -> FederationFolder:
        """The same folder, as the programs know it that a relay shares with the aggregator."""
        return FederationFolder(self.root)

    @property
    def archive(self) -> Path:
        """Folder of what the sites sent, by run: an auditor's, and never deleted here."""
        return self.root / "archive"

    @property
    def lock(self) -> Path:
        """Held by the one process that does the errands."""
        return self.root / "errands.lock"

    def file(self) -> RelayFile:
        """Read who this relay is.

        Raises:
            InputDataError: not a relay's folder.
        """
        return read_relay_file(self.root / RELAY_FILE)

    def node_key(self) -> ec.EllipticCurvePrivateKey:
        """Key with which this relay is a node of the aggregator's."""
        return read_node_key(self.federation.pki / "node.key")

    def desk_key(self) -> SigningKey:
        """Key that signs what it asks the aggregator's desk."""
        return read_signing_key(self.federation.pki / "desk.key")

    def members(self) -> list[Member]:
        """Return the sites that the aggregator last named.

        Raises:
            InternalError: the list cannot be read.
        """
        try:
            named = _MEMBERS.validate_json((self.root / "members.json").read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            raise InternalError(
                "the list of this relay's sites cannot be read",
                field=str(self.root / "members.json"),
                got=type(error).__name__,
                advice="Delete it: the aggregator names them anew",
            ) from error
        return [Member(m.name, m.node_key, m.revoked) for m in named]

    def keep_members(self, members: list[Member]) -> None:
        """Keep the sites that the aggregator names."""
        named = [_Member(name=m.name, node_key=m.node_key, revoked=m.revoked) for m in members]
        with self.federation.locked():
            replace_durably(self.root / "members.json", _MEMBERS.dump_json(named))


def unpack(root: Path, file: RelayFile, bind: str, port: int) -> RelayFolder:
    """Lay a relay's folder out; what was there is replaced but for its archive.

    Args:
        root: the folder.
        file: as the aggregator made it.
        bind: address on which its sites' connections are taken.
        port: likewise.

    Raises:
        InputDataError: another relay's folder, or an address that nobody can listen on.
    """
    relay = RelayFolder(root)
    if relay.is_one and relay.file().name != file.name:
        raise InputDataError(
            "another relay's folder",
            field=str(root),
            expected=file.name,
            got=relay.file().name,
            advice="Name another with --dir",
        )
    try:
        settings = FederationSettings(
            name=file.federation, address=file.address, bind_host=bind, port=port
        )
    except ValidationError as error:
        raise InputDataError(
            "nobody can listen so", field="--port", expected="1 to 65532", got=f"{port}"
        ) from error
    federation = relay.federation
    for path in (root, federation.pki, federation.flower, relay.archive):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in {
        "ca.crt": file.ca_certificate,
        "server.crt": file.server_certificate,
        "server.key": file.server_key,
        "node.key": file.node_key,
        "desk.key": file.desk_key,
    }.items():
        _replace_secret(federation.pki / name, text.encode("ascii"))
    secret = federation.flower / "superexec.key"
    if not secret.exists():
        write_secret(secret, os.urandom(32).hex().encode())
    replace_durably(federation.settings_file, as_toml(settings.model_dump(exclude_none=True)))
    (root / RELAY_FILE).unlink(missing_ok=True)
    write_relay_file(root / RELAY_FILE, file)
    return relay


def listening_port(address: Address) -> int:
    """Return the port of an address."""
    return int(address.rpartition(":")[2])


def _replace_secret(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    write_secret(path, data)

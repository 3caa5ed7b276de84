"""Relays as the aggregator knows them: who is one, which sites are behind it, who is there.

A relay holds no authority over what either side believes, so its one file is made here and
handed over, as a coordinator's is. Which relay a site is behind is said when it is invited:
the invite names the relay's address in place of the aggregator's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aggregator.admin.certificates import authority
from aggregator.admin.folder import FederationFolder
from aggregator.admin.toml import as_toml
from common.arrivals.texts import toml_of
from common.crypto.certificates import (
    certificate_to_pem,
    generate_node_key,
    issue_server_certificate,
    node_public_line,
)
from common.crypto.files import read_secret, write_secret
from common.crypto.identity import PublicKey, SigningKey, read_public_key
from common.enrolment import Address
from common.errors import InputDataError, InternalError, RefusedError
from common.ledger.durable import replace_durably
from common.settings import describe_validation
from common.wire.records import FederationName, SiteName

HERE_S: Final = 15.0
"""A relay that has said nothing for so long is not there."""
DIRECT: Final = "-"
"""In place of a relay's name: the site is behind none."""
_BEHIND: Final = "relay"
_Pem = Annotated[str, Field(max_length=20_000)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RelayFile(_Document):
    """The one file of a relay, mode 0600: where it stands, whom it trusts, and its keys.

    Attributes:
        name: the relay's.
        address: host:port under which its sites reach it.
        aggregator, enrolment: host:port of the aggregator's Fleet API, and of its desk.
        witness_key: public key with which the aggregator signs orders and errands.
        server_certificate, server_key: PEM; what its sites see.
        node_key: PEM; with it the relay is a node of the aggregator's.
        desk_key: PEM; signs what it asks the desk.
    """

    v: Literal[1] = 1
    federation: FederationName
    name: SiteName
    address: Address
    aggregator: Address
    enrolment: Address
    ca_certificate: _Pem
    witness_key: Annotated[str, Field(max_length=200)]
    server_certificate: _Pem
    server_key: Annotated[_Pem, Field(repr=False)]
    node_key: Annotated[_Pem, Field(repr=False)]
    desk_key: Annotated[_Pem, Field(repr=False)]


class _Record(_Document):
    address: Address
    node_key: Annotated[str, Field(max_length=500)]
    desk_key: Annotated[str, Field(max_length=200)]
    former_node_keys: list[str] = []


class _Here(_Document):
    unix_s: float
    online: list[str]


@dataclass(frozen=True)
class Member:
    """Somebody whose courier, or who as a relay, may connect to a SuperLink.

    Attributes:
        node_key: OpenSSH line.
        revoked: whether it may no longer.
    """

    name: str
    node_key: str
    revoked: bool = False


@dataclass(frozen=True)
class KnownRelay:
    """A relay that was ever added.

    Attributes:
        address: host:port under which its sites reach it.
        node_key: OpenSSH line.
        desk_key: that signs what it asks the desk.
        withdrawn: whether nothing of it is taken any more.
        former_node_keys: that it had before its file was made anew.
    """

    name: str
    folder: Path
    address: str
    node_key: str
    desk_key: PublicKey
    withdrawn: bool
    former_node_keys: tuple[str, ...] = ()

    def note_here(self, online: Iterable[str], now: Callable[[], float] = time.time) -> None:
        """Note that it has asked, and which of its sites are connected to it.

        Not made durable: it is out of date in seconds.
        """
        here = _Here(unix_s=now(), online=sorted(online))
        temporary = self.folder / f".here.{os.getpid()}"
        temporary.write_text(here.model_dump_json(), encoding="ascii")
        temporary.replace(self.folder / "here.json")

    def online(self, now: Callable[[], float] = time.time) -> frozenset[str] | None:
        """Name the sites that are connected to it; None where it is not there itself."""
        try:
            here = _Here.model_validate_json((self.folder / "here.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return frozenset(here.online) if abs(now() - here.unix_s) < HERE_S else None


def known_relays(folder: FederationFolder) -> dict[str, KnownRelay]:
    """Return relays that were ever added, by name, the withdrawn ones too.

    Raises:
        InternalError: a record that cannot be read.
    """
    relays = {}
    for path in sorted(folder.relays.glob("*/relay.json")):
        try:
            record = _Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InternalError(
                "a relay's record cannot be read", field=str(path), got=type(error).__name__
            ) from error
        relays[path.parent.name] = KnownRelay(
            path.parent.name,
            path.parent,
            record.address,
            record.node_key,
            PublicKey.parse(record.desk_key),
            (path.parent / "withdrawn").exists(),
            tuple(record.former_node_keys),
        )
    return relays


def standing_relay(folder: FederationFolder, name: str) -> KnownRelay:
    """Return a relay that may be asked for something.

    Raises:
        RefusedError: there is none of this name, or it was withdrawn.
    """
    relay = known_relays(folder).get(name)
    if relay is None or relay.withdrawn:
        standing = [r.name for r in known_relays(folder).values() if not r.withdrawn]
        raise RefusedError(
            "no such relay" if relay is None else "this relay was withdrawn",
            field="relay",
            expected=", ".join(standing) or "a relay; there is none",
            got=name,
            advice="Add one: cairn-aggregator relay add NAME --address HOST:PORT",
        )
    return relay


def add_relay(
    folder: FederationFolder, name: str, address: str, hosts: Collection[str] = ()
) -> RelayFile:
    """Make a relay's keys and certificate; those that it had before end.

    Args:
        folder: the federation's.
        name: the relay's; neither a site nor a withdrawn relay has it.
        address: host:port under which its sites will reach it.
        hosts: further names and addresses for its certificate.

    Raises:
        RefusedError: a name that is taken.
        InputDataError: not a name, not an address, or not a federation's folder.
    """
    settings, (ca_key, ca_certificate) = folder.settings(), authority(folder)
    host = address.rpartition(":")[0].strip("[]")
    names = list(dict.fromkeys([host, "127.0.0.1", "localhost", *hosts]))
    key, certificate = issue_server_certificate(ca_key, ca_certificate, names)
    node, desk = generate_node_key(), SigningKey.generate()
    try:
        made = RelayFile(
            federation=settings.name,
            name=name,
            address=address,
            aggregator=settings.address,
            enrolment=settings.public_enrolment,
            ca_certificate=certificate_to_pem(ca_certificate).decode("ascii"),
            witness_key=read_public_key(folder.pki / "witness.pub").text,
            server_certificate=certificate_to_pem(certificate).decode("ascii"),
            server_key=_pem(key, serialization.PrivateFormat.PKCS8),
            node_key=_pem(node, serialization.PrivateFormat.OpenSSH),
            desk_key=desk.to_pem().decode("ascii"),
        )
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "no relay can be so", field=field, expected=expected, got=got
        ) from error
    with folder.locked():
        _require_free(folder, name)
        before = known_relays(folder).get(name)
        record = _Record(
            address=address,
            node_key=node_public_line(node),
            desk_key=desk.public.text,
            former_node_keys=[] if before is None else [*before.former_node_keys, before.node_key],
        )
        place = folder.relays / name
        place.mkdir(parents=True, exist_ok=True)
        replace_durably(place / "relay.json", record.model_dump_json().encode())
    return made


def withdraw_relay(folder: FederationFolder, name: str) -> tuple[str, ...]:
    """Take nothing of a relay any more; its name never returns.

    Returns:
        The sites that are behind it, which have to be invited anew.

    Raises:
        RefusedError: no such relay, or it was withdrawn before.
    """
    with folder.locked():
        relay = standing_relay(folder, name)
        replace_durably(relay.folder / "withdrawn", b"")
    return tuple(sorted(site for site in folder.admitted() if relay_of(folder, site) == name))


def put_behind(folder: FederationFolder, site: str, relay: str) -> None:
    """Note which relay a site is behind from its next joining on; empty: none.

    Raises:
        RefusedError: no such relay, or a site that is called like one.
    """
    if relay:
        standing_relay(folder, relay)
    require_no_relay(folder, site)
    with folder.locked():
        if relay:
            (folder.sites / site).mkdir(parents=True, exist_ok=True)
            replace_durably(folder.sites / site / _BEHIND, relay.encode("ascii"))
        else:
            forget_relay(folder, site)


def require_no_relay(folder: FederationFolder, site: str) -> None:
    """Return only if no relay is called like a site.

    Raises:
        RefusedError: one is.
    """
    if (folder.relays / site).exists():
        raise RefusedError(
            "a relay has this name", field="site", got=site, advice="Invite it by another name"
        )


def forget_relay(folder: FederationFolder, site: str) -> None:
    """Put a site behind no relay; for whoever holds the lock."""
    (folder.sites / site / _BEHIND).unlink(missing_ok=True)


def relay_of(folder: FederationFolder, site: str) -> str:
    """Name the relay that a site is behind; empty where it is behind none."""
    try:
        return (folder.sites / site / _BEHIND).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def groups(folder: FederationFolder) -> dict[str, frozenset[str]]:
    """Return the admitted sites behind each relay that stands, by its name."""
    behind = {site: relay_of(folder, site) for site in folder.admitted()}
    standing = [relay.name for relay in known_relays(folder).values() if not relay.withdrawn]
    return {name: frozenset(s for s, relay in behind.items() if relay == name) for name in standing}


def members_of(folder: FederationFolder, relay: str) -> list[Member]:
    """Return the sites that a relay lets in, and those that it no longer may."""
    return [
        Member(site.name, site.request.node_key, site.revoked)
        for site in folder.known().values()
        if relay_of(folder, site.name) == relay
    ]


def members(folder: FederationFolder) -> list[Member]:
    """Return whoever may connect to the aggregator itself: all sites, and the relays."""
    sites = [Member(s.name, s.request.node_key, s.revoked) for s in folder.known().values()]
    relays = known_relays(folder).values()
    now = [Member(relay.name, relay.node_key, relay.withdrawn) for relay in relays]
    former = [Member(relay.name, key, True) for relay in relays for key in relay.former_node_keys]
    return [*sites, *now, *former]


def write_relay_file(path: Path, relay: RelayFile) -> None:
    """Write a relay's file, mode 0600, never over an existing one.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_secret(path, as_toml(relay.model_dump(), multiline=True))


def read_relay_file(path: Path) -> RelayFile:
    """Read a relay's file.

    Raises:
        InputDataError: absent, open to group or others, or not a relay's.
    """
    try:
        return RelayFile.model_validate(toml_of(read_secret(path)))
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "the relay's file is not valid", field=field, expected=expected, got=got
        ) from error
    except ValueError as error:
        raise InputDataError(
            "the relay's file is not TOML", field=str(path), got=type(error).__name__
        ) from error


def _require_free(folder: FederationFolder, name: str) -> None:
    relay = known_relays(folder).get(name)
    if relay is not None and relay.withdrawn:
        raise RefusedError(
            "this relay was withdrawn", field="name", got=name, advice="Add one by another name"
        )
    if (folder.sites / name).exists():
        raise RefusedError("a site has this name", field="name", got=name)


def _pem(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> str:
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, form, serialization.NoEncryption()).decode("ascii")

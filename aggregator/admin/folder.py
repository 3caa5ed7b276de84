"""A federation's folder: where its settings, keys, sites and runs lie."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.arrivals.files import read_bounded
from common.arrivals.texts import MOST_TEXT_BYTES, toml_of
from common.crypto.identity import PublicKey, SigningKey, read_signing_key
from common.enrolment import Address, JoinRequest, read_request
from common.errors import InputDataError, InternalError
from common.ledger.rotation import open_rotation
from common.settings import describe_validation
from common.wire.bounds import MAX_IMAGES
from common.wire.records import FederationName, SiteName

_Port = Annotated[int, Field(ge=1, le=65535)]
COUNTS_AS = "counts-as"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine itself can connect to a listener on ``host``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


class FederationSettings(BaseModel):
    """``federation.toml``. What is left out follows from what is there.

    Attributes:
        name: the federation's.
        address: host:port under which the sites reach the aggregator.
        bind_host, port: where the SuperLink listens; loopback unless asked otherwise.
        behind_proxy: whether a reverse proxy stands before the SuperLink and the
            enrolment desk; sites then reach both under ``address``.
        enrolment: host:port under which the sites reach the enrolment desk.
        enrol_host, enrol_port: where it listens; default: bind_host, port + 1.
        desk: host:port under which coordinators reach their desk.
        desk_host, desk_port: where it listens; default: bind_host, port + 2.
        metrics_host, metrics_port: for Prometheus; default: loopback, port + 3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    name: FederationName
    address: Address
    bind_host: str = "127.0.0.1"
    port: _Port
    behind_proxy: bool = False
    enrolment: Address | None = None
    enrol_host: str | None = None
    enrol_port: _Port | None = None
    desk: Address | None = None
    desk_host: str | None = None
    desk_port: _Port | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: _Port | None = None

    @model_validator(mode="after")
    def _listeners_differ(self) -> Self:
        ports = [port for _, port in self.listeners().values()]
        if max(ports) > 65535 or len(set(ports)) < len(ports):
            raise ValueError("four different ports of at most 65535 (enrol_port, desk_port, ...)")
        return self

    def listeners(self) -> dict[str, tuple[str, int]]:
        """Host and port of everything that listens, by what it is."""
        return {
            "sites": (self.bind_host, self.port),
            "enrolment": (self.enrol_host or self.bind_host, self.enrol_port or self.port + 1),
            "coordinators": (self.desk_host or self.bind_host, self.desk_port or self.port + 2),
            "metrics": (self.metrics_host, self.metrics_port or self.port + 3),
        }

    @property
    def public_enrolment(self) -> str:
        """host:port that an invite names."""
        if self.enrolment is not None or self.behind_proxy:
            return self.enrolment or self.address
        return f"{self._public_host}:{self.listeners()['enrolment'][1]}"

    @property
    def public_desk(self) -> str:
        """host:port that a coordinator's credential names."""
        return self.desk or f"{self._public_host}:{self.listeners()['coordinators'][1]}"

    @property
    def _public_host(self) -> str:
        return self.address.rpartition(":")[0]


def declared_samples(request: JoinRequest) -> int:
    """Count a site by its own word; a site of unknown size counts as one image."""
    return request.images or 1


@dataclass(frozen=True)
class AdmittedSite:
    """A site whose public keys the coordinator has accepted."""

    name: SiteName
    folder: Path
    request: JoinRequest

    @property
    def ledger_key(self) -> PublicKey:
        """Key that signs the site's checkpoints."""
        return PublicKey.parse(self.request.ledger_key)

    @property
    def checkpoint_file(self) -> Path:
        """The newest checkpoint of the site that the aggregator has cosigned."""
        return self.folder / "checkpoint.note"

    @property
    def samples_file(self) -> Path:
        """File of what the site counts as, as the coordinator or the site's own word settled it."""
        return self.folder / COUNTS_AS

    @property
    def samples_cap(self) -> int:
        """Most samples that an update of this site counts as in an average; at least 1.

        What was settled at admission or since. A site that an earlier release admitted
        counts as what it declared, and as one if it declared nothing.

        Raises:
            InternalError: the file holds something else than a count.
        """
        try:
            text = self.samples_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return declared_samples(self.request)
        if not text.isdigit() or not 1 <= int(text) <= MAX_IMAGES:
            raise InternalError(
                "what a site counts as cannot be read",
                field=str(self.samples_file),
                expected=f"1 to {MAX_IMAGES}",
                got=f"{len(text)} other characters",
                advice=f"Settle it anew: cairn-aggregator admit {self.name} --images N",
            )
        return int(text)

    @property
    def certificate_file(self) -> Path:
        """The newest TLS certificate that was issued to the site."""
        return self.folder / "tls.crt"

    @property
    def revoked(self) -> bool:
        """True if the coordinator has withdrawn the site's keys."""
        return (self.folder / "revoked").exists()


@dataclass(frozen=True)
class FederationFolder:
    """Paths below one federation's folder."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """Name, address and port."""
        return self.root / "federation.toml"

    @property
    def pki(self) -> Path:
        """ca.crt, ca.key, server.crt, server.key, witness.key, witness.pub."""
        return self.root / "pki"

    @property
    def sites(self) -> Path:
        """One folder per admitted site."""
        return self.root / "sites"

    @property
    def relays(self) -> Path:
        """One folder per relay that was ever added; see ``aggregator.admin.relays``."""
        return self.root / "relays"

    @property
    def invites(self) -> Path:
        """Promises and to whom: one file per token, named by the token's digest."""
        return self.root / "invites"

    @property
    def quarantine(self) -> Path:
        """Folder of replies that were refused, for people to look at; bounded."""
        return self.root / "quarantine"

    @property
    def order_bells(self) -> Path:
        """Rung with a site's name when an order waits for it; see ``aggregator.bells``."""
        return self.root / "bells" / "orders"

    @property
    def reply_bells(self) -> Path:
        """Rung when a site's reply is complete."""
        return self.root / "bells" / "replies"

    @property
    def desk(self) -> Path:
        """Certificates of the coordinators who may use the desk."""
        return self.root / "desk"

    @property
    def generation_file(self) -> Path:
        """File that says which generation of the federation key is the newest; never the key."""
        return self.root / "federation-key.json"

    @property
    def runs(self) -> Path:
        """One folder per run."""
        return self.root / "runs"

    @property
    def queue(self) -> Path:
        """Folder of the queue of runs, and of the locks of who conducts them."""
        return self.root / "queue"

    @property
    def flower(self) -> Path:
        """Folder of Flower's own programs: database, home, logs, shared secret."""
        return self.root / "flower"

    def settings(self) -> FederationSettings:
        """Read ``federation.toml``.

        Raises:
            InputDataError: missing or not valid; says to run ``init`` first.
        """
        try:
            return FederationSettings.model_validate(
                toml_of(read_bounded(self.settings_file, MOST_TEXT_BYTES, "federation.toml"))
            )
        except ValidationError as error:
            field, expected, got = describe_validation(error)
            raise InputDataError(
                "federation.toml is not valid", field=field, expected=expected, got=got
            ) from error
        except (OSError, ValueError) as error:
            raise InputDataError(
                "this is not a federation's folder",
                field=str(self.settings_file),
                got=type(error).__name__,
                advice="Run `cairn-aggregator init DIR` first, or name the folder with --dir",
            ) from error

    def witness_key(self) -> SigningKey:
        """Key that signs orders and cosigns the sites' checkpoints."""
        return read_signing_key(self.pki / "witness.key")

    @property
    def rotations_folder(self) -> Path:
        """Folder of the exchanges of that key, a note each."""
        return self.pki / "rotations"

    def rotations(self) -> tuple[bytes, ...]:
        """Return the exchanges that led to the key that counts, the oldest first.

        Raises:
            VerificationError: a note was altered.
        """
        notes = [path.read_bytes() for path in sorted(self.rotations_folder.glob("*.rotation"))]
        # The last one may tell of a key that an interrupted exchange has not put in force yet.
        if notes and open_rotation(notes[-1]).new != self.witness_key().public:
            notes.pop()
        return tuple(notes)

    def known(self) -> dict[str, AdmittedSite]:
        """Sites that were ever admitted, by name, the revoked ones too."""
        # The request is written last, so a site that is just being admitted is not there yet.
        return {
            path.parent.name: AdmittedSite(path.parent.name, path.parent, read_request(path))
            for path in sorted(self.sites.glob("*/request.json"))
        }

    def admitted(self) -> dict[str, AdmittedSite]:
        """Admitted and not revoked sites by name, in order of name."""
        return {name: site for name, site in self.known().items() if not site.revoked}

    def waiting(self) -> dict[str, JoinRequest]:
        """Return the requests that came with a good token and wait for the coordinator, by site."""
        return {
            path.parent.name: read_request(path)
            for path in sorted(self.sites.glob("*/waiting.json"))
        }

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes that change who is invited, admitted or revoked."""
        self.settings()
        with self._lock_file.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                _mark(file.fileno())

    @property
    def changed(self) -> int:
        """Another number after each change of who is invited, admitted or revoked."""
        try:
            return self._lock_file.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    @property
    def _lock_file(self) -> Path:
        return self.root / ".lock"

    def run(self, name: str) -> Path:
        """Return the folder of a run.

        Raises:
            InputDataError: there is no such run.
        """
        folder = self.runs / name
        if not (folder / "plan.json").exists():
            raise InputDataError(
                "there is no such run",
                field=name,
                expected="one of " + (", ".join(self.run_names()[-5:]) or "none so far"),
            )
        return folder

    def run_names(self) -> list[str]:
        """Names of all runs, oldest first."""
        return sorted(path.parent.name for path in self.runs.glob("*/plan.json"))

    def latest_run(self) -> str:
        """Name of the newest run.

        Raises:
            InputDataError: no run was ever started.
        """
        names = self.run_names()
        if not names:
            raise InputDataError(
                "no run was started yet", advice="Start one: cairn-aggregator round start PLAN"
            )
        return names[-1]


def _mark(descriptor: int) -> None:
    """Give a file a time that no change before had, however coarse the file system's clock is."""
    now = time.time_ns()
    try:
        os.utime(descriptor, ns=(now, now))
    except PermissionError:
        # Another user of this machine made it: the kernel's own time is all that we may set.
        os.utime(descriptor)

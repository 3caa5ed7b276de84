"""One site's folder: where its settings, keys, ledger and spool lie.

The worker and the courier are given different parts of it. In containers the
worker mounts ``worker/``, ``spool/`` and the images; the courier mounts
``courier/`` and ``spool/`` and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.arrivals.files import read_bounded
from common.arrivals.texts import MOST_TEXT_BYTES, toml_of
from common.errors import InputDataError
from common.settings import describe_validation
from common.wire.records import Digest, SiteName


class SiteSettings(BaseModel):
    """``site.toml``: what the two processes of a site need to know.

    Attributes:
        address: host:port of the aggregator, or of the relay that the site is behind.
        enrolment: host:port of its enrolment desk; None for a site that joined by mail.
        data: folder of images, absolute or relative to the site folder.
        app_sha256: the only Flower app that the courier serves.
        witness_policy: text of a policy file; None where nobody but the aggregator witnesses.
        slide_threads: threads that count a slide's pixels; 1 when omitted. No result depends on it.
        relay: that the site is behind; None where it is behind none.
        slides: ``shards`` has the worker wait for ``cairn-site pixels merge``; when omitted it
            counts by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    federation: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    site: SiteName
    address: Annotated[str, Field(pattern=r"^[^\s/]{1,255}:[0-9]{1,5}$")]
    data: str
    app_sha256: Digest
    enrolment: Annotated[str, Field(pattern=r"^[^\s/]{1,255}:[0-9]{1,5}$")] | None = None
    witness_policy: Annotated[str, Field(max_length=262_144)] | None = None
    slide_threads: Annotated[int, Field(ge=1, le=64)] | None = None
    slides: Literal["worker", "shards"] | None = None
    relay: SiteName | None = None

    @property
    def receiver(self) -> str:
        """Whom the courier's connection goes to, for a person to read."""
        return f"{self.address} (relay {self.relay})" if self.relay else self.address


@dataclass(frozen=True)
class SlideSettings:
    """A site's own settings of how its slides are counted; no result depends on them.

    Attributes:
        threads: that count, 1 to 64.
        by_shards: wait for ``cairn-site pixels merge`` in place of counting.
    """

    threads: int = 1
    by_shards: bool = False


@dataclass(frozen=True)
class SiteFolder:
    """Paths below one site's folder."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """Settings that both processes read."""
        return self.root / "site.toml"

    @property
    def request_file(self) -> Path:
        """Our public keys, as they were or will be sent to the coordinator."""
        return self.root / "request.json"

    @property
    def policy_file(self) -> Path:
        """The site's own bounds on every plan; only the worker reads it."""
        return self.root / "policy.toml"

    @property
    def worker(self) -> Path:
        """Worker only: keys, keys/, ledger/, answers/, state/, log/, heldout.json."""
        return self.root / "worker"

    @property
    def ledger(self) -> Path:
        """The ledger; an auditor gets a copy of this folder."""
        return self.worker / "ledger"

    @property
    def ledger_key(self) -> Path:
        """Secret key that signs the site's checkpoints."""
        return self.worker / "ledger.key"

    @property
    def federation_key(self) -> Path:
        """Secret key shared by the sites and unknown to the aggregator, brought by hand."""
        return self.worker / "federation.key"

    @property
    def slide_results(self) -> Path:
        """Results of slides until their pass is over, and what a pass was asked; the worker's."""
        return self.worker / "pixels"

    @property
    def key_ring(self) -> Path:
        """Federation keys by generation, as other sites sealed them to us; only the worker's."""
        return self.worker / "keys"

    @property
    def sealing_key(self) -> Path:
        """Secret key with which we open what other sites seal for us."""
        return self.worker / "sealing.key"

    @property
    def witness_key(self) -> Path:
        """Public key with which the aggregator signs orders and receipts."""
        return self.worker / "witness.pub"

    @property
    def data_file(self) -> Path:
        """Layout of what is known of the images, as ``[data]`` of a configuration; optional."""
        return self.worker / "data.toml"

    @property
    def decisions(self) -> Path:
        """A person's decisions on their way into the ledger."""
        return self.worker / "decisions"

    @property
    def witness_standing(self) -> Path:
        """File of how this ledger stands with each third witness."""
        return self.worker / "witnesses.json"

    @property
    def witness_evidence(self) -> Path:
        """Checkpoints that third witnesses hold against this ledger."""
        return self.worker / "witness-evidence"

    @property
    def waiting_plans(self) -> Path:
        """Plans that wait for a person, one file each, named by fingerprint."""
        return self.worker / "plans"

    @property
    def quarantine(self) -> Path:
        """Folder of orders that were refused, for people to look at; bounded, only the worker's."""
        return self.worker / "quarantine"

    @property
    def lost(self) -> Path:
        """File that proves that the ledger lacks records; there until a person has spoken."""
        return self.worker / "lost.json"

    @property
    def worker_log(self) -> Path:
        """The worker's own log; its texts stay at the site."""
        return self.worker / "log" / "worker.log"

    @property
    def worker_status(self) -> Path:
        """File of what the worker did last, for ``cairn-site status``."""
        return self.worker / "status.json"

    @property
    def held_out(self) -> Path:
        """Memory of who is held out and who was trained on; digests, and only the worker's."""
        return self.worker / "heldout.json"

    @property
    def last_errors(self) -> Path:
        """File of the errors that were told last, for ``cairn-site status``."""
        return self.worker / "errors.json"

    @property
    def trouble(self) -> Path:
        """File of why an order failed for this site's data; only the worker's folder has it."""
        return self.worker / "trouble.json"

    @property
    def node_key(self) -> Path:
        """Secret key that authenticates the courier."""
        return self.courier / "node.key"

    @property
    def tls_key(self) -> Path:
        """Secret key of our certificate."""
        return self.courier / "tls.key"

    @property
    def tls_certificate(self) -> Path:
        """Our certificate for the enrolment desk; renewed in place, always for the same key."""
        return self.courier / "tls.crt"

    @property
    def has_certificate(self) -> bool:
        """True where our certificate is here; False where the courier's folder is out of sight."""
        try:
            return self.tls_certificate.exists()
        except PermissionError:
            return False

    @property
    def authority(self) -> Path:
        """Certificate of the federation's own authority."""
        return self.courier / "ca.crt"

    @property
    def courier(self) -> Path:
        """Courier only: node.key, tls.key, tls.crt, ca.crt, ledger.pub, journal.jsonl."""
        return self.root / "courier"

    @property
    def courier_ledger_key(self) -> Path:
        """The ledger's public key, to which the courier holds what lies in the outbox."""
        return self.courier / "ledger.pub"

    @property
    def journal(self) -> Path:
        """The courier's signed journal of requests."""
        return self.courier / "journal.jsonl"

    @property
    def spool(self) -> Path:
        """Both: inbox/ and outbox/."""
        return self.root / "spool"

    def settings(self) -> SiteSettings:
        """Read ``site.toml``.

        Raises:
            InputDataError: missing or not valid; says to join first.
        """
        try:
            return SiteSettings.model_validate(
                toml_of(read_bounded(self.settings_file, MOST_TEXT_BYTES, "site.toml"))
            )
        except ValidationError as error:
            field, expected, got = describe_validation(error)
            raise InputDataError(
                f"{self.settings_file.name} is not valid", field=field, expected=expected, got=got
            ) from error
        except (OSError, ValueError) as error:
            raise InputDataError(
                "this is not a site folder",
                field=str(self.settings_file),
                got=type(error).__name__,
                advice="Run `cairn-site join INVITE --data DIR` first",
            ) from error

    def data(self) -> Path:
        """The folder of images."""
        return (self.root / self.settings().data).resolve()

    def slide_settings(self) -> SlideSettings:
        """Return how slides are counted here.

        Raises:
            InputDataError: as ``settings``.
        """
        settings = self.settings()
        return SlideSettings(settings.slide_threads or 1, settings.slides == "shards")

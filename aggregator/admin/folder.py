"""A federation's folder: where its settings, keys, sites and runs lie."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.crypto.identity import PublicKey, SigningKey, read_signing_key
from common.enrolment import JoinRequest, read_request
from common.errors import InputDataError
from common.plan import describe_validation
from common.wire.records import SiteName


class FederationSettings(BaseModel):
    """``federation.toml``.

    Attributes:
        name: the federation's.
        address: host:port under which the sites reach the aggregator.
        bind_host, port: where the aggregator listens; loopback unless asked otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    address: Annotated[str, Field(pattern=r"^[^\s/]{1,255}:[0-9]{1,5}$")]
    bind_host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]


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
    def revoked(self) -> bool:
        """Whether the coordinator has withdrawn the site's keys."""
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
    def runs(self) -> Path:
        """One folder per run."""
        return self.root / "runs"

    @property
    def flower(self) -> Path:
        """What Flower's own programs keep: database, home, logs, shared secret."""
        return self.root / "flower"

    def settings(self) -> FederationSettings:
        """Read ``federation.toml``.

        Raises:
            InputDataError: missing or not valid; says to run ``init`` first.
        """
        try:
            return FederationSettings.model_validate(
                tomllib.loads(self.settings_file.read_text(encoding="utf-8"))
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

    def admitted(self) -> dict[str, AdmittedSite]:
        """Admitted and not revoked sites by name, in order of name."""
        found: dict[str, AdmittedSite] = {}
        # The request is written last, so a site that is just being admitted is not there yet.
        for path in sorted(self.sites.glob("*/request.json")):
            site = AdmittedSite(path.parent.name, path.parent, read_request(path))
            if not site.revoked:
                found[site.name] = site
        return found

    def run(self, name: str) -> Path:
        """The folder of a run.

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

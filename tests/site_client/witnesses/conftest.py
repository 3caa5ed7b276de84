"""A site with a ledger, its courier's folder, and witnesses on loopback that it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import pytest

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey, write_public_key
from common.ledger.log import Ledger
from common.witness.policy import parse_policy
from site_client.join import settings_text
from site_client.site import SiteFolder, SiteSettings
from site_client.spool import Spool
from site_client.witnesses.asking import Asking
from site_client.witnesses.carry import WitnessCarrier
from tests.common.witness.conftest import ORIGIN, Bench, Log
from tests.common.witness.test_asking import noted


@dataclass
class Site:
    """The two halves of a site that matter here, and time that passes when told to."""

    folder: SiteFolder
    key: SigningKey
    sent: list[httpx.Request] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def log(self) -> Log:
        return Log(self.key, ORIGIN)

    def name(self, policy: str | None) -> None:
        settings = SiteSettings(
            federation="study",
            site="site-a",
            address="127.0.0.1:1",
            data="images",
            app_sha256=sha256_hex(b"app"),
            witness_policy=policy,
        )
        self.folder.settings_file.write_bytes(settings_text(settings))

    def open(self) -> Ledger:
        return Ledger.open(self.folder.ledger, ORIGIN, self.key, lambda: datetime.now(UTC))

    def asking(self, ledger: Ledger) -> Asking:
        policy = parse_policy(self.folder.settings().witness_policy or "")
        return Asking(self.folder, policy, ledger, ticks=lambda: self.seconds)

    def carrier(self) -> WitnessCarrier:
        return WitnessCarrier(self.folder, noted(self.sent.append), ticks=lambda: self.seconds)

    def settle(self, asking: Asking, carrier: WitnessCarrier, turns: int = 6) -> None:
        """Let both halves take turns, some seconds apart."""
        for _ in range(turns):
            self.seconds += 2
            asking.turn()
            carrier.turn()
        asking.turn()


@pytest.fixture
def site(tmp_path) -> Site:
    folder = SiteFolder(tmp_path / "site")
    for part in (folder.worker, folder.courier):
        part.mkdir(parents=True)
    Spool(folder.spool).prepare()
    key = SigningKey.from_seed(b"\1" * 32)
    write_public_key(folder.courier / "ledger.pub", key.public)
    return Site(folder, key)


@pytest.fixture
def ledger(site) -> Iterator[Ledger]:
    with site.open() as opened:
        yield opened


@pytest.fixture
def north(tmp_path) -> Bench:
    return Bench(tmp_path / "north", "north.example/w")


@pytest.fixture
def south(tmp_path) -> Bench:
    from common.crypto.postquantum import PostQuantumSigningKey

    return Bench(
        tmp_path / "south",
        "south.example/w",
        SigningKey.from_seed(b"\x08" * 32),
        PostQuantumSigningKey.from_seed(b"\x08" * 32),
    )

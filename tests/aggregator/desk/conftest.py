"""A federation's desk, listening on loopback: real gRPC, real TLS, no Flower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import make_invite
from aggregator.desk.remote import RemoteDesk
from aggregator.desk.server import DeskServer
from common.enrolment import Invite, JoinRequest, read_request
from site_client.enrol import Admission, send_request
from site_client.join import join
from site_client.site import SiteFolder
from tests.programs import free_ports


@dataclass
class Served:
    """A federation whose desk listens, and sites that join it."""

    folder: FederationFolder
    root: Path

    @property
    def settings(self) -> FederationSettings:
        return self.folder.settings()

    @property
    def remote(self) -> RemoteDesk:
        return RemoteDesk.from_file(self.folder.root / "coordinator.toml")

    def invite(self, site: str = "north", **words) -> Invite:
        return make_invite(self.folder, site, "0" * 64, **words)

    def site(self, invite: Invite, place: str | None = None) -> SiteFolder:
        """A site that has made its keys; nothing is sent yet."""
        folder = SiteFolder(self.root / "sites" / (place or invite.site))
        data = self.root / "images"
        data.mkdir(exist_ok=True)
        join(invite, folder, data)
        return folder

    def enrolled(self, name: str = "north") -> SiteFolder:
        invite = self.invite(name)
        site = self.site(invite)
        standing = send_request(invite, site)
        assert standing.state == "admitted"
        return site

    def request(self, site: SiteFolder) -> JoinRequest:
        return read_request(site.request_file)

    def send(self, invite: Invite, site: SiteFolder) -> Admission:
        return send_request(invite, site)


def make_federation(root: Path, name: str = "brains") -> FederationFolder:
    folder = FederationFolder(root)
    port = free_ports(4)
    settings = FederationSettings(name=name, address=f"127.0.0.1:{port}", port=port)
    create_federation(folder, settings, ["127.0.0.1"])
    return folder


@pytest.fixture
def new_federation(tmp_path: Path) -> FederationFolder:
    """A federation whose desk is closed."""
    return make_federation(tmp_path / "fed")


@pytest.fixture
def served(new_federation: FederationFolder, tmp_path: Path) -> Iterator[Served]:
    """A federation whose desk listens."""
    folder = new_federation
    server = DeskServer(folder)
    server.start()
    try:
        yield Served(folder, tmp_path)
    finally:
        server.stop()

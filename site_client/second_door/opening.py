"""The second door of one site, with what its courier knows."""

from __future__ import annotations

from common.crypto.identity import read_public_key
from common.errors import InputDataError
from site_client.second_door.check import SecondDoor
from site_client.site import SiteFolder


def second_door(site: SiteFolder, roots: dict[int, bytes] | None = None) -> SecondDoor:
    """Return it.

    Args:
        site: the site's folder; only ``courier/`` and site.toml are read.
        roots: of checkpoints that left before, by size.

    Raises:
        InputDataError: the courier lacks the ledger's public key.
    """
    settings = site.settings()
    if not site.courier_ledger_key.exists():
        raise InputDataError(
            "the courier does not know its site's ledger",
            field=str(site.courier_ledger_key),
            expected="the ledger's public key",
            got="no file",
            advice="Copy worker/ledger/ledger.pub there, or run `cairn-site join` again",
        )
    return SecondDoor(
        site=settings.site,
        federation=settings.federation,
        public=read_public_key(site.courier_ledger_key),
        app_sha256=settings.app_sha256,
        roots=dict(roots or {}),
    )

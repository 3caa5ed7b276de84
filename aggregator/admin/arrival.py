"""Arrival of the federation key, as far as the desk can know without opening anything.

A courier asks the desk, hands what it is given to its worker, and asks again: who
asks again has given it. That, and since when a site asks, is noted per site, so
that a run can wait for a key that is on its way. A key that a person carries leaves
no trace here, and nothing waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from aggregator.admin import sealed
from aggregator.admin.folder import FederationFolder
from common.ledger.durable import replace_durably

COMING_S = 120.0
"""What has not come so long after it could have been made or sealed is not on its way."""


class Asking(BaseModel):
    """Knowledge that a site's courier gives the desk by asking.

    Attributes:
        generation: that was the newest when it began to ask.
        since: Unix time at which it first asked while that was so.
        given: newest generation that its worker has been given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: int
    since: float
    given: int = 0


def note_asking(
    folder: FederationFolder, site: str, generation: int, now: float | None = None
) -> None:
    """Note that an admitted site asked how things stand.

    Args:
        folder: the federation's.
        site: its name.
        generation: generation that it was handed before this; 0: none.
        now: Unix time.
    """
    newest, noted = sealed.newest(folder).generation, _asking(folder, site)
    since = time.time() if now is None else now
    if noted is not None:
        generation = max(generation, noted.given)
        since = noted.since if noted.generation == newest else since
    asking = Asking(generation=newest, since=since, given=generation)
    if asking != noted:
        replace_durably(_file(folder, site), asking.model_dump_json().encode())


def coming_to(
    folder: FederationFolder, sites: Collection[str], now: float | None = None
) -> tuple[str, ...]:
    """List those of ``sites`` to which the newest federation key is on its way, by name.

    It is on its way to a site that asks the desk and has not been given it, for two
    minutes from the last thing that could bring it: the site began to ask, the key was
    made or sealed to it, or a site was revoked, so that another is made.
    """
    now = time.time() if now is None else now
    newest = sealed.newest(folder).generation
    renewing = now - sealed.revoked_since(folder) < COMING_S
    coming = []
    for name in sorted(set(sites) & folder.admitted().keys()):
        asking = _asking(folder, name)
        if asking is None:
            continue
        if newest and asking.given >= newest:
            if renewing:
                coming.append(name)
            continue
        moved = max(asking.since, sealed.made_at(folder), sealed.sealed_at(folder, name, newest))
        if now - moved < COMING_S:
            coming.append(name)
    return tuple(coming)


def _file(folder: FederationFolder, site: str) -> Path:
    return folder.sites / site / "key-asked.json"


def _asking(folder: FederationFolder, site: str) -> Asking | None:
    """Read what is noted; the unreadable is noted anew, for nothing but patience hangs on it."""
    try:
        return Asking.model_validate_json(_file(folder, site).read_bytes())
    except (OSError, ValidationError):
        return None

"""The text of a plan for a person to read: one file per plan, named by its fingerprint.

An order puts it here, so whatever comes is small, checked against its name when read,
and of limited number: an aggregator that invents plans can fill this folder and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from common.arrivals.texts import MOST_TEXT_BYTES, json_of
from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.errors import CairnError
from common.ledger.records import format_timestamp
from common.plan import FederationPlan, parse_plan
from common.settings import Frozen
from common.wire.records import Digest, RunName
from site_client.files import write_atomically
from site_client.site import SiteFolder

MOST_KEPT: Final = 64
"""Files; the one that came first makes room, and comes back when its order is asked again."""


class _Note(Frozen):
    """The file."""

    v: Literal[1] = 1
    plan: Annotated[str, Field(max_length=1 << 20)]
    since: Annotated[str, Field(pattern=r"^[0-9TZ:-]{20}$")]
    run: RunName | None = None
    order_sha256: Digest | None = None


@dataclass(frozen=True)
class KeptPlan:
    """A plan whose text lies here.

    Attributes:
        plan: as it came, checked against its fingerprint.
        since: when it was first heard of (RFC 3339, UTC).
        run, order_sha256: the newest run that asked for it and its order; None of a plan
            that a person brought as a file before any run did.
    """

    plan: FederationPlan
    since: str
    run: str | None
    order_sha256: str | None


def note_waiting(
    site: SiteFolder, plan: FederationPlan, run: str, order_sha256: str, now: datetime
) -> None:
    """Keep the text of a plan that an order asked for and nobody has approved.

    Harmless to repeat: the time of the first stays, run and order are the newest.

    Args:
        site: whose.
        plan: as the order carried it.
        run: that asks.
        order_sha256: digest of the order's bytes.
        now: aware.

    Raises:
        OSError: the disk refused.
    """
    _write(site, plan, now, run, order_sha256)


def note_brought(site: SiteFolder, plan: FederationPlan, now: datetime) -> None:
    """Keep the text of a plan that a person decides about before any run asks for it."""
    if _read(_path(site, plan.fingerprint)) is None:
        _write(site, plan, now, None, None)


def waiting_plans(site: SiteFolder) -> tuple[KeptPlan, ...]:
    """Every plan that an order asked for, first heard of first; decided or not."""
    return tuple(stored for stored in kept_plans(site) if stored.run is not None)


def kept_plans(site: SiteFolder) -> tuple[KeptPlan, ...]:
    """Every plan whose text lies here, first heard of first.

    A file that is not the plan that its name says is passed over.
    """
    plans = [stored for path in _files(site) if (stored := _read(path)) is not None]
    return tuple(sorted(plans, key=lambda stored: (stored.since, stored.plan.fingerprint)))


def _write(
    site: SiteFolder, plan: FederationPlan, now: datetime, run: str | None, order: str | None
) -> None:
    site.waiting_plans.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _path(site, plan.fingerprint)
    before = _read(path)
    since = format_timestamp(now) if before is None else before.since
    if before is not None and (before.run, before.order_sha256) == (run, order):
        return
    if before is None:
        _make_room(site)
    note = _Note(plan=plan.canonical().decode("utf-8"), since=since, run=run, order_sha256=order)
    write_atomically(path, canonical_json(note.model_dump(mode="json")))


def _make_room(site: SiteFolder) -> None:
    files = _files(site)
    sound = {path: stored for path in files if (stored := _read(path)) is not None}
    for path in files:
        if path not in sound:
            path.unlink(missing_ok=True)
    oldest = sorted(sound, key=lambda path: (sound[path].since, path.name))
    for path in oldest[: max(0, len(oldest) - MOST_KEPT + 1)]:
        path.unlink(missing_ok=True)


def _files(site: SiteFolder) -> list[Path]:
    return sorted(site.waiting_plans.glob("*.json")) if site.waiting_plans.is_dir() else []


def _path(site: SiteFolder, fingerprint: str) -> Path:
    return site.waiting_plans / f"{fingerprint}.json"


def _read(path: Path) -> KeptPlan | None:
    try:
        note = _Note.model_validate(json_of(path.read_bytes(), 2 * MOST_TEXT_BYTES))
        plan = plan_of(note.plan.encode("utf-8"))
    except (OSError, ValueError, ValidationError, CairnError):
        return None  # torn or not ours: the order is asked again, and the note comes back
    if plan.fingerprint != path.stem or sha256_hex(note.plan.encode("utf-8")) != path.stem:
        return None
    return KeptPlan(plan, note.since, note.run, note.order_sha256)


def plan_of(text: bytes) -> FederationPlan:
    """Return a plan from its canonical text.

    Raises:
        VerificationError: not canonical JSON.
        InputDataError: not a plan that this release knows.
    """
    return parse_plan(parse_canonical_json(text, "plan"))

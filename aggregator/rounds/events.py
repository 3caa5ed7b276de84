"""The journal of a run: one JSON object per line, written as things happen.

``status``, ``watch`` and ``report`` read only this file and the files it
names, so that they work while a run goes on, after it, and on a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.arrivals.texts import json_of
from common.errors import InputDataError
from common.ledger.durable import append_line
from common.plan import Kind
from common.schedule import Phase
from common.settings import MM
from common.wire.codes import ReplyCode
from common.wire.records import TaskError

Awaited = Literal["turn", "online", "federation_key", "approval"]

RunVerdict = Literal["COMPLETED", "DEGRADED", "FAILED", "STOPPED"]


class _Event(BaseModel):
    """Every event carries the moment it was written, UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ts: datetime = Field(default_factory=lambda: datetime.now(UTC))


class RunQueued(_Event):
    """The run exists and waits for its turn, for the first time or to be gone on with.

    Attributes:
        rounds: rounds of work that the plan has.
        ahead: the runs that have their turns before it.
    """

    event: Literal["run_queued"] = "run_queued"
    run: str
    plan_name: str
    plan_fingerprint: str
    kind: Kind = "training"
    unit: str = MM
    rounds: int
    ahead: tuple[str, ...] = ()


class StopAsked(_Event):
    """A coordinator wants the run to end.

    Attributes:
        by: a coordinator's name, or that it was asked where the folder is.
    """

    event: Literal["stop_asked"] = "stop_asked"
    by: str


class RunStarted(_Event):
    """The run's turn has begun and it waits for sites, for the first time or gone on with.

    Attributes:
        rounds: rounds of work that the plan has.
        unit: of the errors that sites tell; mm where a plan tells none.
    """

    event: Literal["run_started"] = "run_started"
    run: str
    federation: str
    plan_name: str
    plan_fingerprint: str
    kind: Kind = "training"
    unit: str = MM
    rounds: int
    quorum: int
    sites: tuple[str, ...]
    resumed_after: int | None = None


class SitesAwaited(_Event):
    """The run waits before its work begins; said again when for whom changes.

    Attributes:
        what: that they be online, that the federation key has come to them, or that a
            person there approves the plan.
        sites: who is waited for; empty when it is not known who will come, and of
            approvals when the wait is over.
    """

    event: Literal["sites_awaited"] = "sites_awaited"
    what: Awaited
    sites: tuple[str, ...]


class RoundStarted(_Event):
    """Orders of a round went out; round 0 is the agreement on what a run starts from.

    Attributes:
        order_bytes: of the order and the last round's sum, which every site is sent.
    """

    event: Literal["round_started"] = "round_started"
    round: int
    phase: Phase
    order_bytes: int
    sites: tuple[str, ...]


class SiteReplied(_Event):
    """A site's records were verified and accepted, or it reported a failure by number.

    Attributes:
        bytes: envelope bytes that left the site for this round.
        records: bytes per record type.
        errors: evaluation of the weights the round started from.
        accepted: whether its update is in the round's average.
        relay: that the answer came by; empty where the site answered the aggregator itself.
    """

    event: Literal["site_replied"] = "site_replied"
    round: int
    site: str
    code: ReplyCode
    accepted: bool
    bytes: int
    records: dict[str, int] = {}
    images: int = 0
    transitions: int = 0
    updates: int = 0
    loss_milli: int = 0
    train_ms: int = 0
    seconds: float = 0.0
    ledger_size: int = 0
    errors: tuple[TaskError, ...] = ()
    relay: str = ""


class SiteRejected(_Event):
    """Something of a site's reply did not hold; nothing of it was merged.

    Attributes:
        bytes: what had arrived of it.
        put_aside: SHA-256 under which what arrived lies in the federation's quarantine;
            empty where nothing does.
    """

    event: Literal["site_rejected"] = "site_rejected"
    round: int
    site: str
    reason: str
    bytes: int = 0
    put_aside: str = ""


class SiteRestored(_Event):
    """A site's ledger goes on from a backup; it has recorded what it lost.

    Attributes:
        lost_size: records of the newest checkpoint that is lost.
        seq: position of its RESTORE record.
        person: of the site, who says so.
    """

    event: Literal["site_restored"] = "site_restored"
    round: int
    site: str
    lost_size: int
    seq: int
    person: str


class AggregatorRestored(_Event):
    """A site holds our signature on more of its ledger than we remember: we are a backup.

    Attributes:
        remembered: records that we know to have cosigned; 0 for none.
        cosigned: records that the site shows.
    """

    event: Literal["aggregator_restored"] = "aggregator_restored"
    round: int
    site: str
    remembered: int
    cosigned: int


class SiteLate(_Event):
    """A site had not answered at the round's deadline."""

    event: Literal["site_late"] = "site_late"
    round: int
    site: str


class RelayFailed(_Event):
    """A relay did not do what it was asked, or what it sent did not hold.

    Attributes:
        sites: behind it that this costs the round, unless it is asked again.
    """

    event: Literal["relay_failed"] = "relay_failed"
    round: int
    relay: str
    reason: str
    sites: tuple[str, ...]


class RoundFinished(_Event):
    """A round's outcome is on disk.

    Attributes:
        model_sha256: digest of the outcome: of the averaged weights, or of what a run
            without a model has come to; empty where there is nothing yet.
        sketch_fill: share of cells of the merged table that differ from zero.
        sketch_total: keys behind the merged table since the run began.
        alike: of the last round of training, how alike each site's experience is to that of
            all others, in thousandths; empty without tables.
    """

    event: Literal["round_finished"] = "round_finished"
    round: int
    phase: Phase
    sites: tuple[str, ...]
    model_sha256: str
    sketch_fill: float = 0.0
    sketch_total: int = 0
    alike: dict[str, int] = {}
    seconds: float = 0.0


class RunFinished(_Event):
    """The run's verdict: COMPLETED, DEGRADED (rejections or absences), FAILED, or STOPPED."""

    event: Literal["run_finished"] = "run_finished"
    verdict: RunVerdict
    reason: str = ""
    rounds: int
    model_sha256: str = ""
    seconds: float = 0.0
    exit_code: int = 0


Event = (
    RunQueued
    | StopAsked
    | RunStarted
    | SitesAwaited
    | RoundStarted
    | SiteReplied
    | SiteRejected
    | SiteRestored
    | AggregatorRestored
    | SiteLate
    | RelayFailed
    | RoundFinished
    | RunFinished
)
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def append_event(path: Path, event: Event) -> None:
    """Add one line to the journal, for good: a run is resumed by it, also after a power cut.

    Raises:
        OSError: the disk refused.
    """
    append_line(path, event.model_dump_json().encode())


def read_events(path: Path, start: int = 0) -> Iterator[tuple[int, Event]]:
    """Events from byte offset ``start``, each with the offset after it.

    A half-written last line is left for the next call.

    Raises:
        InputDataError: a whole line that is no event.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return
    position = start
    for line in data.split(b"\n")[:-1]:
        position += len(line) + 1
        try:
            yield position, _ADAPTER.validate_python(json_of(line))
        except (ValidationError, ValueError) as error:
            raise InputDataError(
                "the run's journal is damaged",
                field=f"{path.name} before byte {position}",
                expected="one event per line",
                got=type(error).__name__,
            ) from error

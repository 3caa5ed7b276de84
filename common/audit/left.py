"""A period's releases: how much, of what type, to whom, under what, by whose yes.

The answers are read from verified records and the texts in the archive alone. Of a broken
ledger only the records before the breakage are counted, and every answer says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from common.audit.asked import from_archive, plan_text
from common.audit.load import Audited
from common.audit.period import Period
from common.errors import CairnError
from common.ledger.layout import Layout
from common.ledger.records import KEYS_RECORD, LedgerRecord
from common.policy import Policy, parse_policy

BOUNDED: Final = "nobody: the policy in force serves plans within its bounds"
NOBODY: Final = "nobody: no record of an approval"
NO_PLAN: Final = "no plan: the federation key, sealed"


@dataclass(frozen=True)
class Departure:
    """One thing that left.

    Attributes:
        record: that declared it.
        plan_name: of the plan in force; empty where its text is not here, or there is none.
        approved_by: the person, or why there is none.
        approved_at: time of the approval, RFC 3339; empty without one.
        sealed_for: the sites to which keys were sealed; empty for everything else.
    """

    record: LedgerRecord
    plan_name: str
    approved_by: str
    approved_at: str
    sealed_for: tuple[str, ...]

    @property
    def to(self) -> str:
        """Return the receiver for people."""
        receiver = self.record.receiver or "not said"
        return f"{receiver} for {', '.join(self.sealed_for)}" if self.sealed_for else receiver

    def as_dict(self) -> dict[str, object]:
        """One flat row: for ``--json``, and the columns of ``--csv``."""
        record = self.record
        return {
            "seq": record.seq,
            "ts": record.ts,
            "federation": record.federation or "",
            "run": record.run or "",
            "round": "" if record.round is None else record.round,
            "phase": record.phase or "",
            "record_type": record.record_type or "",
            "bytes": record.bytes or 0,
            "receiver": record.receiver or "",
            "receiver_key": record.receiver_key or "",
            "sealed_for": " ".join(self.sealed_for),
            "plan": record.plan_fingerprint or "",
            "plan_name": self.plan_name,
            "policy": record.policy_sha256 or "",
            "approved_by": self.approved_by,
            "approved_at": self.approved_at,
            "order": record.order_sha256 or "",
            "payload_sha256": record.payload_sha256 or "",
            "failure": "" if record.code is None else record.code,
        }


@dataclass(frozen=True)
class ReleaseGroup:
    """Releases that have something in common.

    Attributes:
        names: what they have in common, as the columns of a table say it.
        releases: how many.
        bytes: how many together.
    """

    names: tuple[str, ...]
    releases: int
    bytes: int


@dataclass(frozen=True)
class Left:
    """The answer for one ledger and period."""

    site: str
    period: Period
    releases: tuple[Departure, ...]
    refused: int
    expired: int

    @property
    def bytes(self) -> int:
        """All of it together."""
        return sum(release.record.bytes or 0 for release in self.releases)

    @property
    def by_type(self) -> list[ReleaseGroup]:
        """By type and receiver."""
        return self._by(lambda r: (r.record.record_type or "", r.to))

    @property
    def by_plan(self) -> list[ReleaseGroup]:
        """By plan in force, policy in force, and who had approved."""
        return self._by(
            lambda r: (
                r.plan_name or NO_PLAN if r.record.record_type == KEYS_RECORD else r.plan_name,
                (r.record.plan_fingerprint or "")[:16],
                (r.record.policy_sha256 or "")[:16],
                f"{r.approved_by}, {r.approved_at}" if r.approved_at else r.approved_by,
            )
        )

    @property
    def by_run(self) -> list[ReleaseGroup]:
        """By run."""
        return self._by(lambda r: (r.record.run or "no run",))

    def _by(self, names_of: Callable[[Departure], tuple[str, ...]]) -> list[ReleaseGroup]:
        grouped: dict[tuple[str, ...], list[int]] = {}
        for release in self.releases:
            grouped.setdefault(names_of(release), []).append(release.record.bytes or 0)
        return [
            ReleaseGroup(names, len(sizes), sum(sizes)) for names, sizes in sorted(grouped.items())
        ]

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "site": self.site,
            "period": self.period.as_dict(),
            "releases": len(self.releases),
            "bytes": self.bytes,
            "refused": self.refused,
            "expired": self.expired,
            "by_type_and_receiver": _dicts(self.by_type, "record_type", "to"),
            "by_plan": _dicts(self.by_plan, "plan_name", "plan", "policy", "approved_by"),
            "by_run": _dicts(self.by_run, "run"),
            "every_release": [release.as_dict() for release in self.releases],
        }


def what_left(audited: Audited, period: Period) -> Left:
    """Answer for one ledger.

    Args:
        audited: after its audit; only its believable records are counted.
        period: by the site's clock.
    """
    reader = _Reader(Layout(audited.folder))
    releases, refused, expired = list[Departure](), 0, 0
    for record in audited.records:
        reader.follow(record)
        if not period.holds(record):
            continue
        refused += record.event == "REFUSE"
        expired += record.event == "EXPIRE"
        if record.event == "SEND":
            releases.append(reader.release(record))
    site = audited.verdict.site or audited.folder.name
    return Left(site, period, tuple(releases), refused, expired)


class _Reader:
    """Follows the decisions of people, and reads the texts that records name."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._decisions: dict[str, LedgerRecord] = {}
        self._confirmed: dict[str, LedgerRecord] = {}
        self._plan_name = cache(self._read_plan_name)
        self._policy = cache(self._read_policy)

    def follow(self, record: LedgerRecord) -> None:
        """Take a decision."""
        if record.event in ("APPROVE", "DECLINE"):
            self._decisions[record.plan_fingerprint or ""] = record
        elif record.event in ("CONFIRM", "FORGET"):
            self._confirmed[record.peer or ""] = record

    def release(self, record: LedgerRecord) -> Departure:
        """Put what is known about a release together."""
        sealed = record.record_type == KEYS_RECORD
        names = [array.name.split(":")[0] for array in record.arrays or ()] if sealed else []
        words = [self._confirmed[name] for name in names if name in self._confirmed]
        if not sealed:
            decision = self._decisions.get(record.plan_fingerprint or "")
            words = [] if decision is None or decision.event != "APPROVE" else [decision]
        people = ", ".join(dict.fromkeys(word.person or "" for word in words))
        return Departure(
            record,
            "" if sealed else self._plan_name(record.plan_fingerprint or ""),
            people or self._why_nobody(record, sealed=sealed),
            max((word.ts for word in words), default=""),
            tuple(names),
        )

    def _why_nobody(self, record: LedgerRecord, *, sealed: bool) -> str:
        policy = self._policy(record.policy_sha256 or "")
        bounded = policy is not None and policy.plans.approval == "bounded"
        return BOUNDED if bounded and not sealed else NOBODY

    def _read_plan_name(self, fingerprint: str) -> str:
        _, plan = plan_text(self._layout, fingerprint)
        return "" if plan is None else plan.name

    def _read_policy(self, digest: str) -> Policy | None:
        try:
            data = from_archive(self._layout, digest)
            return None if data is None else parse_policy(data)
        except (CairnError, ValueError, OSError):
            return None


def _dicts(groups: Iterable[ReleaseGroup], *columns: str) -> list[dict[str, object]]:
    return [
        {
            **dict(zip(columns, group.names, strict=True)),
            "releases": group.releases,
            "bytes": group.bytes,
        }
        for group in groups
    ]

"""The span of time that a question is about: a month, or from a day to a day, in UTC."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps

import click

from common.errors import UsageError
from common.ledger.records import LedgerRecord, format_timestamp, parse_timestamp

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True)
class Period:
    """A span of time.

    Attributes:
        since: first moment of it.
        until: first moment after it.
    """

    since: datetime = _FIRST
    until: datetime = _LAST

    def holds(self, record: LedgerRecord) -> bool:
        """Tell whether a record is of this span, by the site's clock."""
        return self.since <= parse_timestamp(record.ts) < self.until

    @property
    def says(self) -> str:
        """Return the span for people."""
        match (self.since > _FIRST, self.until < _LAST):
            case (False, False):
                return "ever"
            case (True, False):
                return f"since {format_timestamp(self.since)}"
            case (False, True):
                return f"before {format_timestamp(self.until)}"
            case _:
                return f"from {format_timestamp(self.since)} to {format_timestamp(self.until)}"

    def as_dict(self) -> dict[str, str | None]:
        """For ``--json``; the end is the first moment after the span."""
        return {
            "since": format_timestamp(self.since) if self.since > _FIRST else None,
            "until": format_timestamp(self.until) if self.until < _LAST else None,
        }


def parse_period(month: str | None, since: str | None, until: str | None) -> Period:
    """Read what a person typed.

    Raises:
        UsageError: no such month or day, a month beside days, or an end before its beginning.
    """
    if month is not None and (since is not None or until is not None):
        raise UsageError("--month goes without --since and --until")
    if month is not None:
        return _month(month)
    period = Period(
        _FIRST if since is None else _day(since, "--since"),
        _LAST if until is None else _day(until, "--until", after=True),
    )
    if period.until <= period.since:
        raise UsageError("a period ends before it begins", expected="--since before --until")
    return period


def in_period(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--month``, ``--since`` and ``--until``, as its argument ``period``."""

    @wraps(command)
    def with_options(
        *args: object, month: str | None, since: str | None, until: str | None, **rest: object
    ) -> None:
        command(*args, period=parse_period(month, since, until), **rest)

    options = (
        click.option("--month", metavar="YYYY-MM", help="Only this month (UTC)."),
        click.option("--since", metavar="DAY", help="From this day on: 2026-11-01."),
        click.option(
            "--until", metavar="DAY", help="Up to the end of this day: 2026-11-30; or a time, "
            "2026-11-30T12:00:00Z, up to and without it.",
        ),
    )  # fmt: skip
    decorated: Callable[..., None] = with_options
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def _month(text: str) -> Period:
    match = _MONTH.fullmatch(text)
    if match is None or match[1] in ("0000", "9999"):
        raise UsageError("no such month", field="--month", expected="YYYY-MM", got="another text")
    year, number = int(match[1]), int(match[2])
    first = datetime(year, number, 1, tzinfo=UTC)
    after = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return Period(first, after)


def _day(text: str, option: str, *, after: bool = False) -> datetime:
    """Return the first moment of a day, or of the day after it; a time is taken as it stands."""
    try:
        if "T" in text:
            return parse_timestamp(text)
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=1) if after else day
    except (ValueError, OverflowError) as error:
        raise UsageError(
            "no such day", field=option, expected="YYYY-MM-DD", got="another text"
        ) from error

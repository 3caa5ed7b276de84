"""Which part of a ledger is meant: a month, or from one day or moment to another, in UTC.

The same options at every command that asks about a period.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from common.errors import UsageError
from common.ledger.records import format_timestamp, parse_timestamp

_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Period:
    """A stretch of time; None where it is open.

    Attributes:
        since: first moment in it, aware.
        until: first moment after it, aware.
    """

    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_all(self) -> bool:
        """True where nothing is left out."""
        return self.since is None and self.until is None

    def holds(self, ts: str) -> bool:
        """Tell whether a record's time lies in it."""
        moment = parse_timestamp(ts)
        return (self.since is None or moment >= self.since) and (
            self.until is None or moment < self.until
        )

    def __str__(self) -> str:
        """Return it in words."""
        if self.is_all:
            return "all of it"
        parts = [
            "" if self.since is None else f"from {format_timestamp(self.since)}",
            "" if self.until is None else f"until before {format_timestamp(self.until)}",
        ]
        return " ".join(part for part in parts if part)


def parse_period(month: str | None, since: str | None, until: str | None) -> Period:
    """Return the period that a person typed.

    Args:
        month: ``2026-11``; not together with the others.
        since: a day (``2026-11-07``) or a moment in UTC (``2026-11-07T08:00:00Z``).
        until: the same; the whole of a day is in, and what lies before a moment.

    Raises:
        UsageError: no such month, day or moment, or the end lies before the beginning.
    """
    if month is not None:
        if since is not None or until is not None:
            raise UsageError("--month is a period of its own", got="--since or --until with it")
        return _month(month)
    period = Period(
        None if since is None else _moment(since, "--since", timedelta()),
        None if until is None else _moment(until, "--until", timedelta(days=1)),
    )
    if period.since and period.until and period.until <= period.since:
        raise UsageError("a period ends after it begins", field="--until", got=str(period))
    return period


def period_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--month``, ``--since`` and ``--until``."""
    for option, words in (
        ("--until", "Only up to this day, all of it, or before this moment (UTC)."),
        ("--since", "Only from this day or moment on (UTC)."),
    ):
        command = click.option(option, metavar="DATE", help=words)(command)
    return click.option("--month", metavar="YYYY-MM", help="Only this month (UTC).")(command)


def _month(text: str) -> Period:
    match = _MONTH.fullmatch(text)
    if match is None or match[1] == "0000":
        raise UsageError("not a month", field="--month", expected="YYYY-MM", got="another text")
    year, month = int(match[1]), int(match[2])
    since = datetime(year, month, 1, tzinfo=UTC)
    if (year, month) == (9999, 12):
        return Period(since)
    return Period(since, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))


def _moment(text: str, option: str, of_a_day: timedelta) -> datetime:
    try:
        if _DAY.fullmatch(text):
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + of_a_day
        return parse_timestamp(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            "not a day and not a moment",
            field=option,
            expected="YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ",
            got="another text",
        ) from error

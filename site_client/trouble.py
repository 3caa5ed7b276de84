"""Reasons why an order failed for this site's data, in words, for the people of this site.

What leaves is a number (``ReplyCode.BAD_DATA``). The words go into a note in the
worker's folder, which neither the courier nor an auditor gets, and from there to
``cairn-site status`` and ``cairn-site check``. Nothing here may enter a record, a
reply or the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from common.arrivals.texts import json_of
from common.cli import counted
from common.errors import InputDataError
from site_client.facts import Fact
from site_client.files import write_atomically
from site_client.imaging.faults import each_of
from site_client.site import SiteFolder

MOST_PROBLEMS: Final = 200
_LONGEST: Final = 1000


@dataclass(frozen=True)
class Problem:
    """One thing that cannot be used.

    Attributes:
        where: file, or case and landmark.
        says: what is wrong with it.
        fix: what to do; may be empty.
    """

    where: str
    says: str
    fix: str


@dataclass(frozen=True)
class Trouble:
    """The last order that failed for this site's data.

    Attributes:
        run, round, phase, plan, kind: of the order.
        at: when it failed, UTC.
        problems: what cannot be used, the first ones.
        count: how many there were in all.
    """

    run: str
    round: int
    phase: str
    plan: str
    kind: str
    at: str
    problems: tuple[Problem, ...]
    count: int

    @property
    def says(self) -> str:
        """One line, without the problems themselves."""
        return (
            f"{self.run}, round {self.round} ({self.phase}) failed here at {self.at}: "
            f"{counted(self.count, 'thing')} in the data cannot be used"
        )

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def problems_of(error: InputDataError) -> tuple[Problem, ...]:
    """List what an error says is wrong, item by item."""
    return tuple(Problem(one.field, one.diagnosis[:_LONGEST], one.advice) for one in each_of(error))


def note_trouble(
    site: SiteFolder, error: InputDataError, about: Sequence[str | int], now: datetime
) -> None:
    """Write the note, in place of an older one.

    Args:
        site: whose worker's folder it goes into.
        error: what was wrong.
        about: run, round, phase, plan's name and plan's kind of the order.
        now: when.
    """
    problems = problems_of(error)
    value = dict(zip(("run", "round", "phase", "plan", "kind"), about, strict=True)) | {
        "at": now.isoformat(timespec="seconds"),
        "problems": [asdict(problem) for problem in problems[:MOST_PROBLEMS]],
        "count": len(problems),
    }
    # ASCII: a file's name may hold bytes that are no text.
    write_atomically(site.trouble, json.dumps(value, indent=1).encode("ascii"))


def clear_trouble(site: SiteFolder, kind: str) -> None:
    """Take the note away once an order of the same kind of plan was answered."""
    trouble = read_trouble(site)
    if trouble is not None and trouble.kind == kind:
        site.trouble.unlink(missing_ok=True)


def read_trouble(site: SiteFolder) -> Trouble | None:
    """The note; None where there is none, or where it is out of sight or unreadable."""
    try:
        value = json_of(site.trouble.read_bytes())
        if not isinstance(value, dict):
            return None
        problems = tuple(Problem(**problem) for problem in value.pop("problems"))
        return Trouble(**value, problems=problems)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def trouble_fact(site: SiteFolder) -> Fact:
    """Say whether an order failed for this site's data, and why, for ``cairn-site check``."""
    trouble = read_trouble(site)
    if trouble is None:
        return Fact("data", "ok", "no order failed for the data here")
    shown = "; ".join(problem.says for problem in trouble.problems[:3])
    more = f"; and {trouble.count - 3} more" if trouble.count > 3 else ""
    fix = "Mend or move these files, look again with cairn-site check --data, and ask for the round"
    return Fact("data", "warning", f"{trouble.says}: {shown}{more}", fix)

"""The last errors that this site told, by part, for ``cairn-site status``; a copy stays here.

Read from a record that the door has let out, so it says no more than has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from common.arrivals.texts import json_of
from common.canonical import canonical_json
from common.wire.envelope import Envelope
from common.wire.records import PARTS, Part, RoundReport, TaskError
from site_client.files import write_atomically
from site_client.site import SiteFolder

WORDS: Final[Mapping[Part, str]] = {"held-out": "held out", "training": "training"}


@dataclass(frozen=True)
class PartErrors:
    """Mean errors over all searches of a part, in the unit of the plan's kind of task.

    Attributes:
        searches: behind them.
        mean: of the model that the round began with.
        prior: of the constant predictor, the mean position over the training part.
    """

    searches: int
    mean: float
    prior: float


@dataclass(frozen=True)
class LastErrors:
    """The errors that were told last.

    Attributes:
        run, round: of the order that was answered.
        unit: of the errors.
        parts: by part; only those that were told.
    """

    run: str
    round: int
    unit: str
    parts: Mapping[str, PartErrors]

    @property
    def says(self) -> str:
        """In one line, held-out errors first."""
        each = [
            f"{WORDS[part]} {e.mean:.2f} {self.unit} (constant prior {e.prior:.2f})"
            for part in PARTS
            if (e := self.parts.get(part)) is not None
        ]
        return f"{', '.join(each)}; {self.run}, round {self.round}"

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def mean_of(errors: Iterable[TaskError], part: Part) -> PartErrors | None:
    """Average the errors of a part over its searches; None where there are none."""
    own = [error for error in errors if error.part == part]
    searches = sum(error.searches for error in own)
    if searches == 0:
        return None
    mean = sum(error.searches * error.mean_milli for error in own) / searches
    prior = sum(error.searches * error.prior_milli for error in own) / searches
    return PartErrors(searches, round(mean / 1000, 3), round(prior / 1000, 3))


def note_errors(site: SiteFolder, envelopes: Iterable[Envelope], unit: str) -> None:
    """Keep a copy of the errors among what has just been let out; of none, do nothing.

    Args:
        site: where.
        envelopes: of an answer.
        unit: of the errors of its plan's kind of task.
    """
    for envelope in envelopes:
        record = envelope.record
        if not isinstance(record, RoundReport) or not record.errors:
            continue
        told = {part: mean_of(record.errors, part) for part in PARTS}
        parts: dict[str, PartErrors] = {
            part: errors for part, errors in told.items() if errors is not None
        }
        last = LastErrors(record.run, record.round, unit, parts)
        write_atomically(site.last_errors, canonical_json(last.as_dict()))


def read_errors(site: SiteFolder) -> LastErrors | None:
    """Return what was told last; None before anything was, or where it is out of sight."""
    try:
        value = json_of(site.last_errors.read_bytes())
        if not isinstance(value, dict):
            return None
        parts = {part: PartErrors(**errors) for part, errors in value["parts"].items()}
        return LastErrors(str(value["run"]), int(value["round"]), str(value["unit"]), parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None

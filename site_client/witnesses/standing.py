"""How this ledger stands with each third witness: what `check` and `status` show.

The worker notes it after every answer; only ``rule`` decides anything by it. Loud is
what contradicts: a witness that has seen another history than the one here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Self

from common.errors import ExitCode
from common.ledger.layout import Layout
from common.witness.policy import WitnessPolicy, parse_policy
from site_client.facts import Fact
from site_client.files import write_atomically
from site_client.site import SiteFolder

NOT_ASKED = "not asked yet"


@dataclass(frozen=True)
class Seen:
    """One witness's last word.

    Attributes:
        names: its names in the policy.
        url: where it is asked.
        size: records that it cosigned last; 0: none.
        at: when, UTC as text; empty if never.
        trouble: what keeps it from cosigning, in our own words; empty when nothing does.
        contradicts: it says that this ledger is not the one that it saw.
        proven: and its proof of that bears this site's own signature.
    """

    names: tuple[str, ...]
    url: str
    size: int = 0
    at: str = ""
    trouble: str = NOT_ASKED
    contradicts: bool = False
    proven: bool = False

    @property
    def says(self) -> str:
        """One witness in a line."""
        who = "/".join(self.names)
        if self.contradicts:
            proof = "PROVEN by our own signature" if self.proven else "without proof"
            return f"{who} CONTRADICTS this ledger ({proof}): {self.trouble}"
        standing = f"{who} to {self.size} at {self.at}" if self.size else f"{who}: nothing yet"
        return f"{standing}; {self.trouble}" if self.trouble else standing


@dataclass(frozen=True)
class Standing:
    """All witnesses of a site's policy.

    Attributes:
        quorum: the rule in words.
        witnessed: records covered by the newest checkpoint with a quorum; 0: none.
        at: since when that quorum stands, as text; empty if never.
        witnesses: by their marks.
    """

    quorum: str
    witnessed: int
    at: str
    witnesses: dict[str, Seen]

    @property
    def contradictions(self) -> list[Seen]:
        """Those who have seen another history."""
        return [seen for seen in self.witnesses.values() if seen.contradicts]

    @property
    def says(self) -> str:
        """The quorum in a line."""
        when = f" at {self.at}" if self.at else ""
        return f"{self.quorum} witnessed {self.witnessed} records{when}"

    def as_dict(self) -> dict[str, object]:
        """For ``--json`` and the file."""
        return {
            "quorum": self.quorum,
            "witnessed": self.witnessed,
            "at": self.at,
            "witnesses": {mark: asdict(seen) for mark, seen in self.witnesses.items()},
        }

    def with_seen(self, mark: str, seen: Seen) -> Self:
        """Return the same with one witness's newest word."""
        return replace(self, witnesses=self.witnesses | {mark: seen})


def site_policy(site: SiteFolder) -> WitnessPolicy | None:
    """Return the policy in ``site.toml``; None where the site has none.

    Raises:
        InputDataError: it is not valid.
    """
    text = site.settings().witness_policy
    return None if text is None else parse_policy(text)


def note_standing(site: SiteFolder, standing: Standing) -> None:
    """Write it down, if it differs from what was noted last."""
    text = json.dumps(standing.as_dict(), sort_keys=True).encode()
    path = site.witness_standing
    if not path.exists() or path.read_bytes() != text:
        write_atomically(path, text)


def read_standing(site: SiteFolder) -> Standing | None:
    """Read what the worker noted last; None when it noted nothing, or cannot be seen."""
    try:
        value = json.loads(site.witness_standing.read_bytes())
        witnesses = {
            str(mark): Seen(**(seen | {"names": tuple(seen["names"])}))
            for mark, seen in value.pop("witnesses").items()
        }
        return Standing(**value, witnesses=witnesses)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def witness_fact(site: SiteFolder) -> Fact:
    """Say who witnesses this ledger beside the aggregator, how far, and who contradicts it.

    Raises:
        InputDataError: the policy in site.toml is not valid.
    """
    policy = site_policy(site)
    if policy is None:
        says = "none beside the aggregator: site and aggregator together could rewrite history"
        return Fact("witnesses", "warning", says, "Name some: cairn-site witnesses set FILE")
    standing = read_standing(site)
    if standing is None:
        return Fact("witnesses", "warning", f"{policy.says}: nobody was asked yet", _START)
    if wrong := standing.contradictions:
        return Fact(
            "witnesses",
            "bad",
            "; ".join(seen.says for seen in wrong),
            f"Stop the worker, keep {site.ledger} and {site.witness_evidence} as they are, and "
            "call the auditor and the witness's operator: somebody has seen another history",
            ExitCode.VERIFICATION_FAILED,
        )
    troubled = [seen.says for seen in standing.witnesses.values() if seen.trouble]
    says = "; ".join([standing.says, *troubled])
    behind = standing.witnessed < records_of(site)
    if troubled or behind:
        return Fact("witnesses", "warning", says, _START)
    return Fact("witnesses", "ok", says)


def records_of(site: SiteFolder) -> int:
    """Count the records of the log; 0 without one."""
    log = Layout(site.ledger).log
    return log.read_bytes().count(b"\n") if log.exists() else 0


def seconds_since(text: str, now: datetime) -> float:
    """Return the seconds since a time that ``isoformat`` wrote; endless without one."""
    return (now - datetime.fromisoformat(text)).total_seconds() if text else float("inf")


_START = "They are asked while worker and courier run: cairn-site up"

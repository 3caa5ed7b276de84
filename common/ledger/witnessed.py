"""The end of a log: witnessed or not, by notes that came from elsewhere.

A ledger's own folder can never answer it: whoever can cut the log can cut the receipts
with it. So only a note counts that the auditor brought from somebody else, over all of
the records, with the cosignatures that a judge asks for. ``OneWitness`` asks for the
aggregator's; a policy of several witnesses is another judge with the same method.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from common.crypto.identity import PublicKey
from common.errors import VerificationError
from common.ledger.notes import WITNESS_NAME, open_note, witness_key


@dataclass(frozen=True)
class Judged:
    """A judge's opinion of the cosignatures under one note.

    Attributes:
        witnessed: whether those who must vouch for it do.
        who: the names of the witnesses whose cosignatures hold.
        missing: what is lacking, a clause each; empty if it is witnessed.
        at: the oldest of the cosignatures that count; None without any.
    """

    witnessed: bool
    who: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    at: datetime | None = None


class NoteJudge(Protocol):
    """Whoever says which cosignatures make a note witnessed."""

    def judge(self, checkpoint_note: bytes) -> Judged:
        """Judge a note whose site's signature holds already; never raises for a bad one."""
        ...


@dataclass(frozen=True)
class OneWitness:
    """The aggregator alone."""

    public: PublicKey

    def judge(self, checkpoint_note: bytes) -> Judged:
        """Ask for the one cosignature."""
        try:
            opened = open_note(checkpoint_note, [witness_key(self.public)])
        except VerificationError as error:
            return Judged(witnessed=False, missing=(str(error),))
        return Judged(witnessed=True, who=(WITNESS_NAME,), at=opened.cosigned_at[WITNESS_NAME])


@dataclass(frozen=True)
class Tail:
    """Everything that vouches for the end of a log.

    Attributes:
        size: records that the site has signed.
        witnessed: records that the best note from elsewhere covers; 0 without one.
        who: whose cosignatures those are.
        at: when they saw it.
        doubts: why the end is not witnessed, a clause each; empty if it is.
    """

    size: int = 0
    witnessed: int = 0
    who: tuple[str, ...] = ()
    at: datetime | None = None
    doubts: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """True if all records are witnessed."""
        return not self.doubts and 0 < self.size <= self.witnessed


@dataclass(frozen=True)
class Brought:
    """A note from elsewhere whose site's signature holds, about ``size`` records."""

    name: str
    size: int
    note: bytes


def judge_tail(
    size: int,
    brought: tuple[Brought, ...],
    judge: NoteJudge | None,
    *,
    not_before: datetime | None = None,
) -> Tail:
    """Say whether somebody else has seen a log up to its end.

    Args:
        size: records that the site has signed.
        brought: notes that did not come with the ledger.
        judge: who must have cosigned; None if the auditor has nobody's key.
        not_before: older cosignatures do not count.
    """
    if judge is None:
        return Tail(size, doubts=("no key of a witness was given: --witness",))
    if not brought:
        lacking = "no checkpoint from elsewhere was given: ask the coordinator or a witness for it"
        return Tail(size, doubts=(f"{lacking} (--checkpoint)",))
    best, doubts = Tail(size), list[str]()
    for each in brought:
        judged = judge.judge(each.note)
        if not judged.witnessed:
            doubts += [f"{each.name}: {reason}" for reason in judged.missing]
        elif not_before is not None and (judged.at is None or judged.at < not_before):
            when = "at no known time" if judged.at is None else judged.at.isoformat()
            doubts.append(f"{each.name} is too old: cosigned {when}")
        elif each.size > best.witnessed:
            best = Tail(size, each.size, judged.who, judged.at)
    if best.witnessed >= size:
        return best
    unseen = size - best.witnessed
    doubts.append(f"the last {unseen} of {size} records have no witness from outside the ledger")
    return Tail(size, best.witnessed, best.who, best.at, tuple(doubts))


def age_limit(now: datetime, days: int | None) -> datetime | None:
    """Return the moment before which a cosignature is too old; None for no limit."""
    return None if days is None else now - timedelta(days=days)

"""Questions of a coordinator, whatever machine the federation's folder lies on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from aggregator.admin.server_certificate import ServerCertificate
from aggregator.rounds.store import APPROVAL_S
from common.enrolment import JoinRequest

SiteStanding = Literal["invited", "waiting", "admitted", "revoked"]


@dataclass(frozen=True)
class SiteLine:
    """One site as the aggregator knows it.

    Attributes:
        ledger_sha256: fingerprint of its ledger key; empty before it has enrolled.
        certificate_days: until its certificate expires; None without one.
        online: whether its courier is connected; None when the SuperLink does not answer.
        invite_expires: ISO 8601, of an invite that is still open.
        counts_as: most samples that its update counts as; None before it is admitted.
        relay: that it is behind; empty: none.
    """

    name: str
    state: SiteStanding
    ledger_sha256: str = ""
    certificate_days: int | None = None
    online: bool | None = None
    invite_expires: str = ""
    counts_as: int | None = None
    relay: str = ""


@dataclass(frozen=True)
class RunLine:
    """One run in a list.

    Attributes:
        state: in a word: queued, stopping, a phase, or a verdict.
        round, rounds: round of work that goes on, or the last one, of how many.
        rounds_done: rounds of work that are finished.
        queued_at, started_at, ended_at: ISO 8601; empty where it has not come to that.
        sites: that take part, once the run has begun.
    """

    name: str
    plan: str
    phase: str
    verdict: str
    round: int
    rounds: int
    started_at: str
    state: str = ""
    rounds_done: int = 0
    queued_at: str = ""
    ended_at: str = ""
    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class StartOrder:
    """A run that is wanted.

    Attributes:
        plan: TOML.
        min_sites: to wait for; None: all that are admitted.
        wait_s: how long; then a quorum is enough.
        approval_s: how long to wait for people at the sites to approve the plan.
        attached: documents that the plan names, by file name.
        wait: behind runs that go on or wait; else be refused.
    """

    plan: bytes
    min_sites: int | None = None
    wait_s: float = 60.0
    approval_s: float = APPROVAL_S
    attached: Mapping[str, bytes] = field(default_factory=dict)
    wait: bool = True


@dataclass(frozen=True)
class Started:
    """A run that is in the queue.

    Attributes:
        run: its name.
        folder: at the aggregator.
        since: size of its journal when it was started or resumed, bytes.
        ahead: the runs that have their turns before it; none: its own begins now.
    """

    run: str
    folder: str
    since: int = 0
    ahead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stopping:
    """A run that somebody wants to end.

    Attributes:
        run: its name.
        ended: whether it has: it only waited, or nobody conducted it.
        since: size of its journal when it was asked to end, bytes.
    """

    run: str
    ended: bool
    since: int = 0


@dataclass(frozen=True)
class Admitted:
    """A site that was let in.

    Attributes:
        ledger_sha256: fingerprint of its ledger key.
        counts_as: most samples that its update counts as in an average.
    """

    site: str
    ledger_sha256: str
    counts_as: int


@dataclass(frozen=True)
class Revoked:
    """The effects of a revocation.

    Attributes:
        was_admitted: whether a site's keys were; else only invites and a waiting request.
        disconnected: whether its courier was, at once.
    """

    was_admitted: bool
    disconnected: bool = False


@dataclass(frozen=True)
class Journal:
    """A run's journal that can be read here.

    Attributes:
        path: of the events; it grows while the journal is followed.
        over: set when nothing more will come.
    """

    run: str
    path: Path
    over: threading.Event


class Desk(Protocol):
    """A federation, from its coordinator's chair."""

    @property
    def option(self) -> str:
        """The option to type to reach it again, e.g. ``--dir fed``."""

    def sites(self) -> list[SiteLine]:
        """Every site that was ever invited, in order of name."""

    def certificate(self) -> ServerCertificate | None:
        """Time that the aggregator's own certificate is good for; None if it cannot be read."""

    def facts(self, plan: bytes) -> list[tuple[str, str]]:
        """Return a plan (TOML) as a person reads it before it starts: name and value of each fact.

        Raises:
            InputDataError: it is not valid, or every site's door would refuse it.
        """

    def invite(
        self,
        site: str,
        *,
        days: int,
        auto_admit: bool,
        by_mail: bool,
        images: int | None = None,
        relay: str = "",
    ) -> bytes:
        """Make an invite (TOML).

        Args:
            site: the name that it is for.
            days: how long its token is good.
            auto_admit: admit the first keys that come with the token.
            by_mail: without a token.
            images: what the site will count as; None: as it declares.
            relay: that the site will be behind; empty: as before; "-": none.
        """

    def admit(self, who: JoinRequest | str, images: int | None = None) -> Admitted:
        """Let in a site that waits, by name, or one whose request came by another way.

        Args:
            who: the name or the request; with ``images`` also the name of an admitted site.
            images: what it counts as from now on; None: as settled, or as it declares.
        """

    def revoke(self, site: str) -> Revoked:
        """Withdraw a site, or what would let one in under this name."""

    def runs(self) -> list[RunLine]:
        """Every run, oldest first."""

    def start(self, order: StartOrder) -> Started:
        """Start a run, behind those that are there already."""

    def resume(self, run: str, *, wait: bool = True) -> Started:
        """Go on with a run (empty: the newest) after its last round that counts.

        Args:
            run: its name.
            wait: behind runs that go on or wait; else be refused.
        """

    def stop(self, run: str) -> Stopping:
        """Have a run end that waits or goes on (empty: the one that goes on).

        Raises:
            RefusedError: it is over.
        """

    def journal(
        self, run: str, *, follow: bool = False, since: int = 0
    ) -> AbstractContextManager[Journal]:
        """Return a run's events (run empty: the newest).

        Args:
            run: its name.
            follow: bring what comes until the run has ended.
            since: verdicts before this byte of the journal do not end it.
        """

    def report(self, run: str) -> Iterator[bytes]:
        """Return a run as one HTML page, piece by piece."""

    def model(self, run: str, *, sums: bool) -> Iterator[tuple[str, bytes]]:
        """Return the files of the model that a run (empty: the newest) came to.

        Args:
            run: its name.
            sums: with what the sites of every round sent together.

        Yields:
            Names and pieces of files; the pieces of one file in order.

        Raises:
            RefusedError: the run has not come to a model.
        """

"""Results of attacks on a rehearsed release, as figures, beside what a guess would get.

Figures may be printed and written as JSON. The one picture of each attack stands apart
from them, in a class that no dict or JSON is made of; it is for the page at the site.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from common.cli import counted
from common.plan import FederationPlan

ABOVE_DB: Final = (20.0, 30.0)
"""From the first a person recognises what a cut shows, from the second every detail."""
GAIN_DB: Final = 3.0
"""What a picture must be above the guess to count: half of the guess's squared error."""
LEAST_CASES: Final = 10
"""With fewer cases an interval of AUC holds nearly everything."""
READABLE: Final = frozenset({"triplanar"})
"""Architectures whose first layers ``slices`` and ``imprint`` can turn round."""
UNREADABLE: Final = (
    "These read pictures out of networks of three cuts; none is known for this one, which does "
    "not mean that there is none."
)
NOT_ASKED: Final = "no attacks were asked for"


class Pair:
    """A picture that an attack made, beside the crop it came nearest to. Stays at the site.

    No dataclass, on purpose: ``asdict`` and ``json`` do not open it.

    Args:
        picture: float32[cuts, roi, roi], grey levels; NaN cuts were not read.
        crop: uint8[cuts, roi, roi].
        cut: which of the cuts the figures are about.
    """

    def __init__(self, picture: NDArray[np.float32], crop: NDArray[np.uint8], cut: int) -> None:
        self.picture = picture
        self.crop = crop
        self.cut = cut

    def __repr__(self) -> str:
        return f"Pair(cut={self.cut})"


@dataclass(frozen=True)
class ReadingFinding:
    """The pictures that ``slices`` or ``imprint`` read.

    Attributes:
        attack: which.
        crops: different crops trained on that its pictures were compared with.
        attempts: pictures it made.
        best_db: of the cut that came out furthest above its guess; None without a picture.
        unseen_db: what a guess that never looked gets of that cut; of the best-guessed
            cut where there is no picture.
        above_20_db, above_30_db: crops of which a cut came out above that, and `GAIN_DB`
            above its guess.
        unseen_above_20_db, unseen_above_30_db: crops of which the guess alone gets so far:
            cuts that show next to nothing.
        seconds: it took.
        best: the picture, for the page.
    """

    attack: Literal["slices", "imprint"]
    crops: int
    attempts: int
    best_db: float | None
    unseen_db: float
    above_20_db: int
    above_30_db: int
    unseen_above_20_db: int
    unseen_above_30_db: int
    seconds: float
    best: Pair | None = field(default=None, compare=False, repr=False)

    @property
    def verdict(self) -> str:
        """One plain sentence."""
        if self.best_db is None:
            return "Nothing to read: the update gives no picture at all."
        against = (
            f"{self.best_db:.1f} dB, where a guess that never looked gets {self.unseen_db:.1f}"
        )
        if self.above_20_db:
            return (
                f"Pictures leave: {self.above_20_db} of {counted(self.crops, 'crop')} can be "
                f"recognised, {self.above_30_db} in every detail; the best has {against}."
            )
        return f"No picture comes out; the best of {self.attempts} tries has {against}."

    def as_dict(self) -> dict[str, object]:
        """For JSON: figures only."""
        figures = {k: v for k, v in vars(self).items() if k != "best"}
        return figures | {"verdict": self.verdict}


@dataclass(frozen=True)
class MembershipFinding:
    """The power of an update to tell cases that were trained on from others.

    Attributes:
        trained, others: cases compared.
        updates: gradient steps of the round that was rehearsed on half of the cases.
        auc: chance that a trained case is told from another by how much better the
            network became on it; 0.5 is a coin. None with too few cases.
        low, high: 95 % bootstrap interval of it. With a dozen cases it is a little narrow:
            where there is nothing to tell, ``low`` is above 0.5 about once in twenty times.
        seconds: it took.
    """

    trained: int
    others: int
    updates: int
    auc: float | None
    low: float | None
    high: float | None
    seconds: float
    unseen_auc: float = 0.5

    @property
    def verdict(self) -> str:
        """One plain sentence."""
        if self.auc is None or self.low is None or self.high is None:
            cases = self.trained + self.others
            return f"Too few cases to tell: {cases} of at least {LEAST_CASES}."
        figure = f"AUC {self.auc:.2f} (95 % {self.low:.2f} to {self.high:.2f})"
        if self.low > self.unseen_auc:
            return f"Cases trained on are told from others better than by a coin: {figure}."
        return f"Not told from a coin with {self.trained + self.others} cases: {figure}."

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True)
class Exposure:
    """The results of known attacks on a rehearsed release, or why none was tried.

    Attributes:
        reason: why no attack applies; empty where the findings are there.
        untried: which attacks do not apply to this network, and why; empty where all do.
        slices, imprint, membership: the findings.
    """

    reason: str = ""
    untried: str = ""
    slices: ReadingFinding | None = None
    imprint: ReadingFinding | None = None
    membership: MembershipFinding | None = None

    @property
    def readings(self) -> tuple[ReadingFinding, ...]:
        """The findings that have pictures."""
        return tuple(finding for finding in (self.slices, self.imprint) if finding is not None)

    def lines(self) -> list[tuple[str, str, str, str]]:
        """(attack, what it got, what a guess gets, verdict) of each, in words."""
        lines: list[tuple[str, str, str, str]] = []
        if self.untried:
            lines.append(("slices, imprint", "not tried", "", self.untried))
        for read in self.readings:
            got = "nothing" if read.best_db is None else f"{read.best_db:.1f} dB"
            lines.append((read.attack, got, f"{read.unseen_db:.1f} dB", read.verdict))
        if (membership := self.membership) is not None:
            got = "too few cases" if membership.auc is None else f"AUC {membership.auc:.2f}"
            lines.append(
                ("membership", got, f"AUC {membership.unseen_auc:.2f}", membership.verdict)
            )
        return lines

    def as_dict(self) -> dict[str, object]:
        """For JSON: figures only."""
        if self.reason:
            return {"applicable": False, "reason": self.reason}
        findings = {"slices": self.slices, "imprint": self.imprint, "membership": self.membership}
        untried = {"untried": self.untried} if self.untried else {}
        return (
            {"applicable": True}
            | untried
            | {k: v.as_dict() for k, v in findings.items() if v is not None}
        )


def why_not(plan: FederationPlan) -> str:
    """Say why these attacks do not apply to a plan; empty where they do."""
    match plan.kind:
        case "training":
            return ""
        case "no-op":
            return "nothing is trained: the update is zero and no image is opened"
        case "pixels":
            return "no weights leave: sums over all slides and keyed sketches do"
        case "embed":
            return "no weights leave: counts of pixels per group do"

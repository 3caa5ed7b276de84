"""Comparison of updates among each other: how far one goes beyond the others, and before.

Pure. Only whole updates are left out, never coordinates of one: the sum of those that
stay is what its sites have tagged. Direction says nothing here: honest updates of one
round are nearly at right angles to each other (cosines of -0.14 to 0.29 in what BOUND was
measured on), so one that is turned round looks like the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

BOUND: Final = 3.0
"""How many times the reference an update may be long.

Measured with the demonstration's plan on made data: the longest honest update of a round
was 1.00 to 1.22 times the lower median of three sites, 1.00 to 1.09 of five sites of 2 to
12 cases, 1.00 to 1.55 of two sites of 2 and 10 cases without server momentum. A site
whose learner began anew in the middle of a run came to 1.3 to 2.5; only in the last two
rounds, when the others' learning rate is nearly a tenth of its own, to 4.2.
"""
GROWTH: Final = 2.0
"""How far a round's reference may lie above that of the rounds before.

Honest references fall with the learning rate; the largest rise was 1.43 from one round to
the next, where path supervision ends, and 1.28 above the median of three.
"""
FALL: Final = 2.0
"""How far an honest reference may fall from one round to the next; measured: 1.78 at most."""
ROUNDS: Final = 3
"""How many earlier rounds are looked at: further back, the learning rate was another."""


_FEW: Final = "most updates of the round are longer than earlier rounds let expect"


def oversized(
    norms: Mapping[str, float], history: Sequence[float] = (), bound: float = BOUND
) -> dict[str, str]:
    """Sites whose update is too long to be added, each with the reason.

    The reference is the lower median of the round's norms: a liar that is not the
    majority can raise it to the largest honest norm at most. It is at most ``GROWTH``
    times the median of the last rounds' references: a majority of liars can raise it by
    no more than that, once there was an honest round. Where exactly half of the sites
    would be left out, as the longer of two, the round cannot say which half is right;
    there the reference is at least the smallest of the last rounds' over ``FALL``, so
    that a site that sends next to nothing has no other left out. An update that is too
    short is never left out: it takes its share and moves nothing.

    Whatever one liar of n sends, its part of the mean of those that stay, with equal
    caps, is at most 1/n x ``bound`` x the honest step, which is the largest norm of an
    honest site's update in that round. (For bound >= 2. Its norm is at most ``bound`` x
    reference. Where no honest update is left out, its share is 1/n and the reference is
    at most the honest step. Where one is, the honest step is more than ``bound`` x
    reference, and the liar's share at most 2/n, for half of the sites or more stay.)
    Where half of the sites would be left out, as of two that differ, this holds while the
    honest step is at least the smallest of the last rounds' references over ``FALL``.
    With other caps it is the cap's share in place of 1/n.

    Liars that work together, k of n: with k < n/2, k/n in place of 1/n. With k >= n/2
    they are the median: in a run's first round they are bounded by ``limits.update_l2``
    alone, and have the honest left out by sending little; later by
    ``bound`` x ``GROWTH`` x what was usual, and that may double every other round.

    Args:
        norms: L2 norm of the delta of each site whose answer was accepted so far.
        history: ``reference`` of each earlier training round that counts, oldest first,
            in the same unit. Rounds in which nothing moved (0) say nothing.
        bound: times the reference; at least 2.

    Returns:
        Reasons by site. All sites, where more than half are longer than earlier rounds let
        any be: the quorum then fails, with these reasons in the journal.
    """
    broken = {site for site, norm in norms.items() if not (math.isfinite(norm) and norm >= 0)}
    whole = {site: norm for site, norm in norms.items() if site not in broken}
    limit, why = _limit(whole, [usual for usual in history[-ROUNDS:] if usual > 0], bound)
    reasons = {site: _reason(n, limit, why) for site, n in whole.items() if n > limit}
    if 2 * len(reasons) > len(whole):
        # Whoever stays would be the mean alone.
        reasons = dict.fromkeys(whole, _FEW) | reasons
    return reasons | dict.fromkeys(sorted(broken), "its update has no length")


def reference(norms: Iterable[float]) -> float:
    """Return the lower median of norms, 0 of none: what a round that counts leaves to ``history``.

    Args:
        norms: of the updates that were added.
    """
    ordered = sorted(norms)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0.0


def _limit(norms: Mapping[str, float], history: Sequence[float], bound: float) -> tuple[float, str]:
    """Longest norm that stays, and what it was counted from."""
    usual, why = reference(norms.values()), "the round's median"
    if history:
        if 2 * sum(norm > bound * usual for norm in norms.values()) == len(norms):
            least = min(history) / FALL
            if least > usual:
                usual, why = least, "what earlier rounds let expect at least"
        most = GROWTH * reference(history)
        if most < usual:
            usual, why = most, "what earlier rounds let expect at most"
    return bound * usual, why


def _reason(norm: float, limit: float, why: str) -> str:
    if limit == 0:
        return "its update moves the weights where half of the sites' or more do not"
    return f"its update is {norm / limit:.1f} times as long as allowed, counted from {why}"

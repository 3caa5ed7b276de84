"""Landmarks that come in couples whose names are a convention of the image, not of anatomy.

The two ends of an axis of a head in ultrasound look alike: which is called left is
decided by how the probe was held, and an agent that must learn it fails wherever the
axis stands upright. Declared interchangeable, each of the two searches for whichever
end is nearer; what the searches of both found is split into two places afterwards,
and errors are counted up to the exchange. Nothing here looks at an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError, InternalError
from site_client.agent.search import consensus


class Exchange:
    """The couples of a search for points.

    Args:
        couples: two heads each; no head in two couples.
        targets_mm: float64[cases, heads, d], as acquired; NaN is missing.
        present: int64[n, 2], (case, head) of what is searched for, in the order of the
            evaluation's groups.

    Attributes:
        partner: int64[heads], the other of a couple; a head without one is its own.
        rows: int64[m, 2], groups of the evaluation that are a couple of one case, in the
            couple's order.

    Raises:
        InputDataError: couples that are none.
    """

    def __init__(
        self,
        couples: Sequence[tuple[int, int]],
        targets_mm: NDArray[np.float64],
        present: NDArray[np.int64],
    ) -> None:
        heads = targets_mm.shape[1]
        members = list(itertools.chain.from_iterable(couples))
        if len(set(members)) != len(members) or not set(members) <= set(range(heads)):
            raise InputDataError(
                "landmarks cannot be exchanged",
                field="interchangeable",
                expected="couples of two different landmarks, each landmark in one at most",
            )
        self.partner = np.arange(heads)
        for first, second in couples:
            self.partner[[first, second]] = second, first
        group = {(int(case), int(head)): k for k, (case, head) in enumerate(present)}
        rows, senses = [], []
        for first, second in couples:
            sense = _sense(targets_mm[:, first], targets_mm[:, second])
            for case in range(len(targets_mm)):
                if (case, first) in group and (case, second) in group:
                    rows.append((group[case, first], group[case, second]))
                    senses.append(sense)
        self.rows = np.array(rows, dtype=np.int64).reshape(-1, 2)
        self._senses = np.array(senses).reshape(-1, targets_mm.shape[2])
        self._groups = len(present)
        self._targets_mm = targets_mm

    def ends(self, case: NDArray[np.integer], head: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64[n, 2, d], as acquired: the landmark and its partner; itself without one."""
        own = self._targets_mm[case, head]
        other = self._targets_mm[case, self.partner[head]]
        return np.stack([own, np.where(np.isfinite(other), other, own)], axis=1)

    def agreed(self, places: NDArray[np.floating], outlier_mads: float) -> NDArray[np.float64]:
        """What searches agree on, those of a couple taken together.

        Args:
            places: float[groups, starts, d] where searches ended, in whole draws of the
                evaluation's groups; the two of a couple share their pose.
            outlier_mads: see `consensus`.

        Returns:
            float64[groups, d]; of a couple, the first lies where the first of the
            cases' couples lies on average, seen from the second.

        Raises:
            InternalError: other groups than the evaluation's.
        """
        found = consensus(places, outlier_mads)
        for first, second, sense in self._couples(len(places)):
            both = np.concatenate([places[first], places[second]])
            one, other = two_places(both, outlier_mads)
            if (other - one) @ sense < 0:
                one, other = other, one
            found[first], found[second] = one, other
        return found

    def errors(
        self, places: NDArray[np.floating], truth: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """float64[groups]: distance to the truth, of couples in the better of the two orders.

        Args:
            places: float[groups, d], what was found.
            truth: float64[groups, d], by name.

        Raises:
            InternalError: other groups than the evaluation's.
        """
        errors = np.linalg.norm(places - truth, axis=1)
        for first, second, _ in self._couples(len(places)):
            crossed = np.linalg.norm(places[[first, second]] - truth[[second, first]], axis=1)
            if crossed.sum() < errors[[first, second]].sum():
                errors[[first, second]] = crossed
        return np.asarray(errors)

    def _couples(self, groups: int) -> list[tuple[int, int, NDArray[np.float64]]]:
        """(first, second, sense) of the couples in some draws of the groups."""
        draws, rest = divmod(groups, self._groups)
        if rest:
            raise InternalError(
                "couples are not together",
                expected=f"a multiple of {self._groups} groups",
                got=str(groups),
            )
        return [
            (int(first) + draw * self._groups, int(second) + draw * self._groups, sense)
            for draw in range(draws)
            for (first, second), sense in zip(self.rows, self._senses, strict=True)
        ]


def two_places(
    places: NDArray[np.floating], outlier_mads: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two places that places float[n, d] gather around; equal if they gather around one.

    Of all choices of two among them, the one from whose nearer member the others are
    least far in all: a few stray searches cannot found a place of their own.
    """
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    # far[i, j]: sum over the places of the distance to the nearer of i and j.
    far = np.minimum(apart[:, None], apart[None]).sum(axis=2)
    i, j = np.unravel_index(int(far.argmin()), far.shape)
    nearer = apart[i] <= apart[j]
    if i == j or nearer.all() or not nearer.any():
        middle = consensus(places, outlier_mads)
        return middle, middle.copy()
    return consensus(places[nearer], outlier_mads), consensus(places[~nearer], outlier_mads)


def _sense(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[d]: mean direction from the first to the second over the cases that have both."""
    gap = (second - first)[np.isfinite(second - first).all(axis=1)]
    mean = gap.mean(axis=0) if len(gap) else np.zeros(first.shape[1])
    if not np.linalg.norm(mean) > 0:
        # Of stand-ins for unknown truths: along the image's first axis.
        mean = np.eye(first.shape[1])[0]
    return np.asarray(mean)

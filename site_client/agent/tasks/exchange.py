"""Landmarks that come in couples whose names are a convention of the image, not of anatomy.

The two ends of an axis of a head in ultrasound look alike: which is called left is
decided by how the probe was held, and names learned as if they were anatomy forbid to
turn an image for training. Declared interchangeable, each of the two looks for the end
that lies on its side *in the frame that the agent sees*, after the random pose; whatever
the names in the file, and however far the image was turned. Errors are counted in the
better of a couple's two orders. Nothing here looks at an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError, InternalError


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
        # Each looks for the end with the smaller coordinate along its own direction.
        self._directions = np.zeros((heads, targets_mm.shape[2]))
        group = {(int(case), int(head)): k for k, (case, head) in enumerate(present)}
        rows: list[tuple[int, int]] = []
        for first, second in couples:
            self.partner[[first, second]] = second, first
            axis = _axis(targets_mm[:, first], targets_mm[:, second])
            self._directions[first], self._directions[second] = axis, -axis
            rows += [
                (group[case, first], group[case, second])
                for case in range(len(targets_mm))
                if (case, first) in group and (case, second) in group
            ]
        self.rows = np.array(rows, dtype=np.int64).reshape(-1, 2)
        self._groups = len(present)
        self._targets_mm = targets_mm

    def ends(self, case: NDArray[np.integer], head: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64[n, 2, d], as acquired: the landmark and its partner; itself without one."""
        target = self._targets_mm[case, head]
        other = self._targets_mm[case, self.partner[head]]
        return np.stack([target, np.where(np.isfinite(other), other, target)], axis=1)

    def on_its_side(
        self, ends: NDArray[np.float64], head: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """float64[n, d]: of ends float64[n, 2, d] as they are seen, the one on each head's side."""
        along = np.einsum("nkd,nd->nk", ends, self._directions[head])
        return np.asarray(ends[np.arange(len(ends)), along.argmin(axis=1)])

    def errors(
        self, places: NDArray[np.floating], truth: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """float64[groups]: distance to the truth, of couples in the better of the two orders.

        Args:
            places: float[groups, d], what was found, in whole draws of the evaluation's
                groups; the two of a couple share their pose.
            truth: float64[groups, d], by name.

        Raises:
            InternalError: other groups than the evaluation's.
        """
        draws, rest = divmod(len(places), self._groups)
        if rest:
            raise InternalError(
                "couples are not together",
                expected=f"a multiple of {self._groups} groups",
                got=str(len(places)),
            )
        errors = np.linalg.norm(places - truth, axis=1)
        begins = np.arange(draws)[:, None, None] * self._groups
        both = (begins + self.rows).reshape(-1, 2)
        crossed = np.linalg.norm(places[both] - truth[both[:, ::-1]], axis=2)
        better = crossed.sum(axis=1) < errors[both].sum(axis=1)
        errors[both[better]] = crossed[better]
        return np.asarray(errors)


def _axis(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[d]: the image's axis, forth or back, along which the second mostly follows the first.

    An axis and not the mean direction itself: equal for all splits of the cases.
    """
    gap = (second - first)[np.isfinite(second - first).all(axis=1)]
    mean = gap.mean(axis=0) if len(gap) else np.zeros(first.shape[1])
    along = int(np.abs(mean).argmax())
    axis = np.zeros(len(mean))
    axis[along] = -1.0 if mean[along] < 0 else 1.0
    return axis


def number_couples(
    names: tuple[str, ...], couples: tuple[tuple[str, str], ...]
) -> tuple[tuple[int, int], ...]:
    """Number the landmarks of couples.

    Raises:
        InputDataError: a landmark that is not there.
    """
    for name in (name for couple in couples for name in couple):
        if name not in names:
            raise InputDataError(
                "an interchangeable landmark is not among those looked for",
                field=f"task.interchangeable: {name}",
                expected=", ".join(names),
            )
    return tuple((names.index(first), names.index(second)) for first, second in couples)

"""The share of the crops trained on that an attack's pictures show, beside a blind guess.

Every picture is compared with every crop, cut by cut, and the best counts: an attacker
who cannot tell his good pictures from his bad ones is flattered by that. Peak
signal-to-noise ratio over 255 grey levels; equal cuts count `EQUAL_DB`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from site_client.exposure.crops import Crops

EQUAL_DB: Final = 100.0
"""Said of cuts that are equal in every pixel, whose ratio is infinite."""
_PEAK = 255.0
# Pixels of crops in memory at once, as float32.
_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of every cut of every crop.

    Attributes:
        found_db: float64[crops, cuts], by the best of the attack's pictures; 0 without any.
        unseen_db: float64[crops, cuts], by the better of two guesses that are not made from
            the release: the mean of the other crops, and a flat cut of the right brightness.
        attempts: pictures compared, without those that show nothing.
        best: (crop, cut) that was hit furthest above its guess.
        picture: float32[cuts, roi, roi] that hit it, None without any.
    """

    found_db: NDArray[np.float64]
    unseen_db: NDArray[np.float64]
    attempts: int
    best: tuple[int, int]
    picture: NDArray[np.float32] | None


class Scoring:
    """Compares pictures with crops as they come; remembers how well each cut was hit.

    Args:
        crops: what was really trained on.
    """

    def __init__(self, crops: Crops) -> None:
        first = crops[0:1]
        self._crops = crops
        self._shape = first.shape[1:]
        n, cuts = len(crops), self._shape[0]
        self._error = np.full((n, cuts), np.inf)
        self._unseen = _unseen_errors(crops, self._shape)
        self._best: tuple[int, int] = (0, 0)
        self._gain = -np.inf
        self._picture: NDArray[np.float32] | None = None
        self._attempts = 0

    def add(self, pictures: NDArray[np.float32]) -> None:
        """Compare pictures float32[n, cuts, roi, roi] in grey levels; NaN cuts show nothing."""
        self._attempts += int(np.isfinite(pictures[:, :, 0, 0]).any(axis=1).sum())
        for cut in range(self._shape[0]):
            there = np.flatnonzero(np.isfinite(pictures[:, cut, 0, 0]))
            if len(there):
                self._add_cut(pictures, there, cut)

    def _add_cut(self, pictures: NDArray[np.float32], there: NDArray[np.int64], cut: int) -> None:
        flat = pictures[there, cut].reshape(len(there), -1)
        for begin, crops in _chunks(self._crops, self._shape):
            truth = crops[:, cut].reshape(len(crops), -1).astype(np.float32)
            pick = _nearest(flat, truth)
            # The search rounds; what is reported does not.
            error = np.square(flat[pick].astype(np.float64) - truth).mean(axis=1)
            rows = slice(begin, begin + len(crops))
            self._remember(pictures, there[pick], error, begin, cut)
            self._error[rows, cut] = np.minimum(self._error[rows, cut], error)

    def _remember(
        self,
        pictures: NDArray[np.float32],
        pick: NDArray[np.int64],
        error: NDArray[np.float64],
        begin: int,
        cut: int,
    ) -> None:
        """Keep the picture that is furthest above the guess so far."""
        unseen = self._unseen[begin : begin + len(error), cut]
        gain = decibels(error) - decibels(unseen)
        row = int(gain.argmax())
        if gain[row] > self._gain:
            self._gain, self._best = float(gain[row]), (begin + row, cut)
            self._picture = pictures[pick[row]].copy()

    def scores(self) -> Scores:
        """Return the scores until now."""
        return Scores(
            found_db=decibels(self._error),
            unseen_db=decibels(self._unseen),
            attempts=self._attempts,
            best=self._best,
            picture=self._picture,
        )


def decibels(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratios of mean squared errors: 0 at least, `EQUAL_DB` at most."""
    with np.errstate(divide="ignore"):
        ratio = 10 * np.log10(_PEAK**2 / error)
    return np.clip(np.where(error == 0, EQUAL_DB, ratio), 0.0, EQUAL_DB)


def _nearest(pictures: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.int64]:
    """int64[crops]: the picture [pictures, pixels] of least squared error for each crop."""
    a, b = pictures - 128, truth - 128  # around zero, for fewer digits are lost
    return np.asarray(((a * a).sum(axis=1) - 2 * (b @ a.T)).argmin(axis=1))


def _unseen_errors(crops: Crops, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """float64[crops, cuts]: mean squared errors of the better guess that never looked."""
    n = len(crops)
    total = sum(
        (part.sum(axis=0, dtype=np.float64) for _, part in _chunks(crops, shape)),
        start=np.zeros(shape),
    )
    errors = np.empty((n, shape[0]))
    for begin, part in _chunks(crops, shape):
        truth = part.astype(np.float32)
        flat = truth.var(axis=(2, 3), dtype=np.float64)
        if n > 1:
            # The mean without the crop itself, which it would otherwise have looked at.
            apart = (truth - (total / n).astype(np.float32)) * np.float32(n / (n - 1))
            flat = np.minimum(flat, np.square(apart).mean(axis=(2, 3), dtype=np.float64))
        errors[begin : begin + len(part)] = flat
    return errors


def _chunks(crops: Crops, shape: tuple[int, ...]) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    """Yield (number of the first, uint8[n, cuts, roi, roi]) of all crops, some at a time."""
    many = max(1, _AT_ONCE // int(np.prod(shape)))
    for begin in range(0, len(crops), many):
        yield begin, crops[begin : min(len(crops), begin + many)]

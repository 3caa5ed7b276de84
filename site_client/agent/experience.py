"""Experience as a replay weighs it: what was met here, and how wrong the values still were.

`Knowledge` looks up what a replay holds, here or in the whole federation, and remembers
what is to be told. A tally is exact and stays here. Sums of errors are whole numbers,
so that the sites' sums of them add up exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.plan.experience import ERROR_UNITS, MOST_ERROR
from site_client.agent.replay import ASKING, Drawn, Replay
from site_client.agent.states import State, under
from site_client.agent.task import Situations

Lookup = Callable[[NDArray[np.uint64]], NDArray[np.float64]]
Keys = Callable[[Situations], NDArray[np.uint64]]


class NewExperience(NamedTuple):
    """What a learner has not told anybody yet.

    Attributes:
        keys: uint64[n], of situations met, or of those replayed in gradient steps.
        errors: int64[n], of those replayed: how wrong each was, in `ERROR_UNITS`; else empty.
    """

    keys: NDArray[np.uint64]
    errors: NDArray[np.int64]


def whole_errors(errors: NDArray[np.floating]) -> NDArray[np.int64]:
    """int64[n]: absolute errors in whole units, each at most `MOST_ERROR`; NaN counts as that."""
    units = np.rint(np.abs(errors).astype(np.float64) * ERROR_UNITS)
    return np.asarray(np.fmin(units, MOST_ERROR), dtype=np.int64)


def mean_errors(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    mean: float,
    doubt: float,
) -> NDArray[np.float64]:
    """Mean error of each situation, drawn towards the mean of all where little is known.

    Args:
        sums: float64[n], of errors, in units; estimates may be negative.
        counts: float64[n], of replays behind them; likewise.
        mean: of all situations, in units.
        doubt: replays that the mean of all counts as.

    Returns:
        float64[n], not in units: errors as the values have them.
    """
    replays = np.maximum(counts, 0.0) + doubt
    means = (np.maximum(sums, 0.0) + doubt * mean) / replays
    return np.asarray(np.clip(means, 0.0, MOST_ERROR) / ERROR_UNITS)


class Tally:
    """Exact counts of each experience met here, and sums of its errors; never shrinks."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._errors: dict[int, int] = {}
        self._replays, self._error = 0, 0

    def add(self, keys: NDArray[np.uint64], errors: NDArray[np.int64] | None = None) -> None:
        """Count keys uint64[n], with errors int64[n] where there are any."""
        counts = self._counts
        for key in keys.tolist():
            counts[key] = counts.get(key, 0) + 1
        self._replays += len(keys)
        if errors is not None:
            sums = self._errors
            for key, error in zip(keys.tolist(), errors.tolist(), strict=True):
                sums[key] = sums.get(key, 0) + error
            self._error += int(errors.sum())

    def of(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """float64[n]: how often each key was counted."""
        return _looked_up(self._counts, keys)

    def mean_errors(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """float64[n]: mean error of each; the mean of all counts as one replay more."""
        mean = self._error / self._replays if self._replays else float(ERROR_UNITS)
        return mean_errors(_looked_up(self._errors, keys), self.of(keys), mean, 1.0)

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Keys, counts and errors as arrays."""
        size = len(self._counts)
        return {
            "keys": np.fromiter(self._counts.keys(), np.uint64, size),
            "counts": np.fromiter(self._counts.values(), np.int64, size),
            "errors": np.array([self._errors.get(key, 0) for key in self._counts], np.int64),
        }

    def load_state(
        self,
        keys: NDArray[np.generic],
        counts: NDArray[np.generic],
        errors: NDArray[np.generic],
    ) -> None:
        """Go on from `state_dict`'s arrays."""
        self._counts = dict(zip(keys.tolist(), counts.tolist(), strict=True))
        self._errors = dict(zip(keys.tolist(), errors.tolist(), strict=True))
        self._replays, self._error = int(np.sum(counts)), int(np.sum(errors))


def _looked_up(table: dict[int, int], keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.array([table.get(key, 0) for key in keys.tolist()], dtype=np.float64)


class Knowledge:
    """What is known of the transitions in a replay, and what is new to tell of them.

    Args:
        replay: is told how to weigh what it holds.
        keys: names transitions.
        tells: remember what is new until `new` is asked; else only what the replay needs.
    """

    def __init__(self, replay: Replay, keys: Keys, *, tells: bool) -> None:
        self._replay = replay
        self._keys = keys
        self._tells = tells
        self._federation: Lookup | None = None
        self._local = Tally()
        self._new_keys: list[NDArray[np.uint64]] = []
        self._new_errors: list[NDArray[np.int64]] = []

    def begin(self, federation: Lookup | None, *, looked_up: bool) -> None:
        """Ask the federation from now on, at once about what is held.

        Args:
            federation: what it knows; None: what is met here, which `look_again` looks up.
            looked_up: what is held was looked up before it was saved.
        """
        self._federation = federation
        if federation is not None and self._replay.size and not looked_up:
            self._replay.set_known(federation(self._keys(self._replay.transitions)))

    def of_gathered(self, gathered: Situations) -> NDArray[np.float64] | None:
        """Return what is known of fresh transitions, and count them, if anybody wants to know."""
        kind = self._replay.kind
        tells = self._tells and kind != "wrong-first"
        if not (tells or kind in ASKING):
            return None
        keys = self._keys(gathered)
        if tells:
            self._new_keys.append(keys)
        if kind == "rare-first" and self._federation is None:
            self._local.add(keys)
        return self._known(keys)

    def judge(self, drawn: Drawn, errors: NDArray[np.floating]) -> None:
        """Remember how wrong the values of replayed transitions were: errors float[n]."""
        match self._replay.kind:
            case "prioritised":
                self._replay.set_errors(drawn.slots, errors)
            case "wrong-first":
                keys, units = self._keys(drawn.transitions), whole_errors(errors)
                if self._tells:
                    self._new_keys.append(keys)
                    self._new_errors.append(units)
                if self._federation is None:
                    self._local.add(keys, units)

    def look_again(self) -> None:
        """Look up again what is held, where what is met here is all that is known."""
        if self._federation is None and self._replay.kind in ASKING:
            values = self._known(self._keys(self._replay.transitions))
            if values is not None:
                self._replay.set_known(values)

    def new(self) -> NewExperience:
        """Return what was not told yet; from now on it is."""
        keys = np.concatenate([np.empty(0, np.uint64), *self._new_keys])
        errors = np.concatenate([np.empty(0, np.int64), *self._new_errors])
        self._new_keys, self._new_errors = [], []
        return NewExperience(keys, errors)

    def state_dict(self) -> State:
        """Everything counted, as arrays."""
        keys = np.concatenate([np.empty(0, np.uint64), *self._new_keys])
        errors = np.concatenate([np.empty(0, np.int64), *self._new_errors])
        local = {f"local/{name}": array for name, array in self._local.state_dict().items()}
        return {"new_keys": keys, "new_errors": errors, **local}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `state_dict`."""
        self._new_keys = [np.array(state["new_keys"], dtype=np.uint64)]
        self._new_errors = [np.array(state["new_errors"], dtype=np.int64)]
        self._local.load_state(**under("local/", state))

    def _known(self, keys: NDArray[np.uint64]) -> NDArray[np.float64] | None:
        if self._federation is not None:
            return self._federation(keys)
        match self._replay.kind:
            case "rare-first":
                return self._local.of(keys)
            case "wrong-first":
                return self._local.mean_errors(keys)
            case _:
                return None

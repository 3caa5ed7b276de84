"""The site's side of the experience sketch: its key, its meaning, and what is rare.

A sketch is keyed with bytes derived from the federation key, so that whoever
merges tables cannot query them. Counts and keys stay in memory; only a table
leaves, and only through the door.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from common.crypto.keyed import FederationKey
from common.errors import InputDataError
from common.keys import PlaceCodec
from common.plan import FederationPlan
from common.plan.experience import ERROR_UNITS
from common.settings import KINDS
from common.sketching import CountSketch, SketchSpec
from common.sums.training import ModelState
from common.wire.orders import Order
from site_client.agent.experience import Tally, mean_errors
from site_client.agent.keys import experience_codec
from site_client.agent.novelty import Familiar

PUBLIC_KEY: Final = hashlib.sha256(b"cairn public sketch key v1").digest()[:16]
"""The key of tier 0: everybody knows it, so everybody can query such a table."""
_EXPERIENCE: Final = "experience sketch"
_PIXELS: Final = "pixel sketch"


def sketch_secret(plan: FederationPlan, key: FederationKey | None) -> bytes:
    """Return the 16 bytes that key a plan's sketches: public in tier 0, the sites' own in tier 1.

    Raises:
        InputDataError: the plan asks for a secret key and the site has none.
    """
    if plan.limits.privacy_tier == 0:
        return PUBLIC_KEY
    if key is not None:
        return key.derive(_PIXELS if plan.about_slides else _EXPERIENCE, 16)
    raise InputDataError(
        "this plan needs the federation key",
        field="federation key",
        expected="the key that all sites share",
        got="none yet",
        advice="Another site seals it to this one: see `cairn-site check`",
    )


def experience_spec(plan: FederationPlan, secret: bytes) -> SketchSpec:
    """Dimensions and key of a plan's sketch of experience."""
    cells, identity = plan.experience, experience_codec(plan).identity
    return SketchSpec(cells.rows, cells.columns, secret, domain=identity)


def experience_identity(order: Order) -> str:
    """Name the quantiser that the records of an order's answer must name."""
    return experience_codec(order.plan).identity


def public_key_id() -> str:
    """Id of the tier 0 key, which a plan of tier 1 may not use."""
    return SketchSpec(rows=1, columns=1, key=PUBLIC_KEY).key_id


class Federation(Protocol):
    """What the federation knows of situations, as a learner asks it."""

    def __call__(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """float64[n] of keys uint64[n]."""

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Everything that was added since this was made, as arrays."""

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict``."""


class Frequencies:
    """Frequency of each experience in the federation: estimates, plus our own exact counts.

    The merged sketch knows every site's earlier rounds; what this site meets now
    is not in it yet and is counted exactly.

    Args:
        merged: sketch of all sites' earlier rounds, or None before the first.
        replay_first: the first call asks about the transitions already held, which
            are no new experience.
    """

    def __init__(self, merged: CountSketch | None, *, replay_first: bool) -> None:
        self._merged = merged
        self._replay_first = replay_first
        self._own = Tally()

    def __call__(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Count keys uint64[n] and return their counts float64[n], at least 1."""
        if self._replay_first:
            self._replay_first = False
        else:
            self._own.add(keys)
        counts = self._own.of(keys)
        if self._merged is not None:
            counts += np.maximum(self._merged.estimate(keys), 0.0)
        return np.maximum(counts, 1.0)

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Everything counted since this was made, as arrays."""
        return self._own.state_dict()

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict``: what was held has been asked about already."""
        self._own.load_state(state["keys"], state["counts"], state["errors"])
        self._replay_first = False

    def expect_replay(self) -> None:
        """Expect the next call to ask about held transitions again; used between local rounds."""
        self._replay_first = True


class MeanErrors:
    """Mean error of each situation in the federation, as far as two sketches can tell.

    Where little was counted the noise of the sketches would pass for knowledge: an estimate
    is drawn towards the mean of all situations, by one replay and by as many as a count
    is usually off.

    Args:
        counts: sketch of all sites' replays; None before the first round.
        errors: sketch of their errors, of the same spec.
        replays: behind both.
        error: sum of all their errors.
    """

    def __init__(
        self,
        counts: CountSketch | None = None,
        errors: CountSketch | None = None,
        replays: int = 0,
        error: int = 0,
    ) -> None:
        self._counts, self._errors = counts, errors
        self._mean = error / replays if replays else float(ERROR_UNITS)
        self._doubt = 1.0 if counts is None else 1.0 + usual_error(counts)

    def __call__(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """float64[n] of keys uint64[n]; all alike before the first round."""
        if self._counts is None or self._errors is None:
            return np.full(len(keys), self._mean / ERROR_UNITS)
        return mean_errors(
            self._errors.estimate(keys), self._counts.estimate(keys), self._mean, self._doubt
        )

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Nothing: it counts nothing by itself."""
        return {}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict``."""
        del state


def usual_error(sketch: CountSketch) -> float:
    """Standard error of an estimate, from the table alone.

    A row's sum of squares estimates the second moment F2 of all counts, sqrt(F2 / columns) is
    what a row is off by, and the median of R rows by sqrt(pi / 2R) of that.
    """
    table = sketch.table.astype(np.float64)
    rows, columns = table.shape
    moment = float(np.median(np.square(table).sum(axis=1)))
    return float(np.sqrt(moment / columns) * min(1.0, np.sqrt(np.pi / (2 * rows))))


class Nothing:
    """Of an experience that nobody asks for, nothing is known."""

    def __call__(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """float64[n]: all alike."""
        return np.ones(len(keys))

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Nothing."""
        return {}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict``."""
        del state


def federation_knows(
    plan: FederationPlan, spec: SketchSpec, model: ModelState, *, first: bool
) -> Federation:
    """Return what a plan's replay asks of the sum of all sites' tables.

    Args:
        plan: of the run.
        spec: of its sketches, with the key.
        model: what the run has come to.
        first: the learner holds no transitions yet.
    """

    def sketch(table: NDArray[np.int64] | None) -> CountSketch | None:
        return None if table is None else CountSketch.from_table(spec, table)

    match plan.learner.replay:
        case "rare-first":
            return Frequencies(sketch(model.table), replay_first=not first)
        case "wrong-first":
            counts, errors = sketch(model.table), sketch(model.errors)
            return MeanErrors(counts, errors, model.total, model.error)
        case _:
            return Nothing()


def places_met(
    sketch: CountSketch, codec: PlaceCodec, sizes: tuple[int, int, int], *, flat: bool
) -> NDArray[np.int64]:
    """Look every place up in a merged sketch: int64[heads, z, y, x].

    Of the levels that begin near what is looked for: all but the coarsest, where there are
    several. What is less than two standard errors of the sketch counts as never met.

    Args:
        sketch: with the key.
        codec: of its keys.
        sizes: things that are looked for, levels, and places along each axis.
        flat: of pictures, which have one place along z.
    """
    heads, levels, bins = sizes
    fine = range(min(1, levels - 1), levels)
    depth = 1 if flat else bins
    centres = [(np.arange(n) + 0.5) / bins for n in (depth, bins, bins)]
    grid = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 3)
    least, places = 2 * usual_error(sketch), np.zeros((heads, len(grid)))
    one = np.ones(len(grid), np.int64)
    for head in range(heads):
        for level in fine:
            counts = sketch.estimate(codec.encode(head * one, level * one, grid))
            places[head] += np.where(counts < least, 0.0, counts)
    return np.rint(places).astype(np.int64).reshape(heads, depth, bins, bins)


def familiar_places(plan: FederationPlan, spec: SketchSpec, model: ModelState) -> bytes | None:
    """Return the map that goes with a model at this site; None where the plan keeps none.

    Whoever has the map needs no key any more: it stays in the worker's folder.
    """
    codec = experience_codec(plan)
    if not plan.experience.kept or model.table is None or not isinstance(codec, PlaceCodec):
        return None
    sketch = CountSketch.from_table(spec, model.table)
    sizes = (plan.space.heads, plan.space.levels, plan.experience.position_bins)
    flat = KINDS[plan.task.kind].dim == 2
    return Familiar(places_met(sketch, codec, sizes, flat=flat)).to_bytes()

"""The site's side of the experience sketch: its key, its meaning, and what is rare.

A sketch is keyed with bytes derived from the federation key, so that whoever
merges tables cannot query them. Counts and keys stay in memory; only a table
leaves, and only through the door.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.crypto.keyed import FederationKey
from common.errors import InputDataError
from common.plan import FederationPlan
from common.sketching import CountSketch, SketchSpec
from common.wire.orders import Order
from site_client.agent.keys import LocalCounts, experience_codec

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
        self._own = LocalCounts()

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
        self._own.load_state(state["keys"], state["counts"])
        self._replay_first = False

    def expect_replay(self) -> None:
        """Expect the next call to ask about held transitions again; used between local rounds."""
        self._replay_first = True

"""One step of a search as a 64-bit key: quantised state, action, reward, next state.

Positions are fractions of the image's extent, so that equal keys mean the same
at every site whatever its image sizes. Nothing else of an image enters a key:
no intensity, no case, no site.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError
from common.keys.mixed_radix import MixedRadix

_AXES: Final = ("z", "y", "x")


class Experiences(NamedTuple):
    """Decoded keys; positions and rewards are the centres of their bins.

    landmark, level, action: int64[n].
    position, next_position: float64[n, 3], fractions of the image extent.
    reward: float64[n], -1 to 1.
    """

    landmark: NDArray[np.int64]
    level: NDArray[np.int64]
    position: NDArray[np.float64]
    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    next_position: NDArray[np.float64]


class ExperienceCodec:
    """Bijection between quantised experience tuples and 64-bit keys.

    Args:
        landmarks: landmarks of the task.
        levels: scales of the search.
        actions: actions of the agent.
        position_bins: bins per axis, for the position and the next position.
        reward_bins: bins of the reward between -1 and 1.

    Raises:
        InputDataError: a number below 1, or more than 64 bits; names what to shrink.
    """

    def __init__(
        self, landmarks: int, levels: int, actions: int, position_bins: int, reward_bins: int
    ) -> None:
        sizes = {
            "landmarks": landmarks,
            "levels": levels,
            "actions": actions,
            "position_bins": position_bins,
            "reward_bins": reward_bins,
        }
        _check(sizes)
        self._sizes: Final = sizes
        # Where the search stands comes last, in the high digits: prefixes of a key are
        # then regions of a landmark's search space, coarse before fine.
        fields = [("reward", reward_bins), ("action", actions)]
        fields += [(f"next-{axis}", position_bins) for axis in _AXES]
        fields += [(axis, position_bins) for axis in _AXES]
        fields += [("level", levels), ("landmark", landmarks)]
        self.digits: Final = MixedRadix([r for _, r in fields], [name for name, _ in fields])
        self.identity: Final = sha256_hex(
            canonical_json({"digits": self.digits.identity, "kind": "experience"})
        )

    def __repr__(self) -> str:
        return f"ExperienceCodec({', '.join(f'{k}={v}' for k, v in self._sizes.items())})"

    def encode(
        self,
        landmark: ArrayLike,
        level: ArrayLike,
        position: ArrayLike,
        action: ArrayLike,
        reward: ArrayLike,
        next_position: ArrayLike,
    ) -> NDArray[np.uint64]:
        """Keys of n experiences.

        Args:
            landmark: integers[n], index of the landmark.
            level: integers[n], index of the scale.
            position: float[n, 3], 0 to 1 along each axis of the image.
            action: integers[n].
            reward: float[n], -1 to 1.
            next_position: float[n, 3], as ``position``.

        Returns:
            uint64[n].

        Raises:
            InputDataError: lengths differ, a number is out of range or not finite.
        """
        count = np.asarray(landmark).shape[0] if np.asarray(landmark).ndim == 1 else -1
        bins = self._sizes["position_bins"]
        here = _bins("position", position, 0.0, 1.0, bins, (count, 3))
        there = _bins("next_position", next_position, 0.0, 1.0, bins, (count, 3))
        rewards = _bins("reward", reward, -1.0, 1.0, self._sizes["reward_bins"], (count,))
        columns = [
            rewards[:, None],
            _index("action", action, count)[:, None],
            there,
            here,
            _index("level", level, count)[:, None],
            _index("landmark", landmark, count)[:, None],
        ]
        return self.digits.encode(np.concatenate(columns, axis=1))

    def decode(self, keys: ArrayLike) -> Experiences:
        """Return the quantised experiences behind ``keys``; encoding them gives the same keys.

        Args:
            keys: uint64[n].

        Raises:
            InputDataError: not uint64[n], or keys of another codec.
        """
        digits = self.digits.decode(keys).astype(np.int64)
        bins = self._sizes["position_bins"]
        reward = (digits[:, 0].astype(np.float64) + 0.5) * (2.0 / self._sizes["reward_bins"]) - 1.0
        return Experiences(
            landmark=digits[:, 9],
            level=digits[:, 8],
            position=(digits[:, 5:8] + 0.5) / bins,
            action=digits[:, 1],
            reward=reward,
            next_position=(digits[:, 2:5] + 0.5) / bins,
        )


def _check(sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise InputDataError(
                "no such experience codec",
                field=name,
                expected="an integer of at least 1",
                got=f"{size}" if type(size) is int else type(size).__name__,
            )
    powers = {"position_bins": 6}
    bits = {name: powers.get(name, 1) * float(np.log2(size)) for name, size in sizes.items()}
    product = 1
    for name, size in sizes.items():
        product *= size ** powers.get(name, 1)
    if product > 2**64:
        widest = max(bits, key=lambda name: bits[name])
        raise InputDataError(
            "experience keys do not fit into 64 bits",
            field=widest,
            expected="fewer",
            got=f"{sum(bits.values()):.1f} bits, {bits[widest]:.1f} of them from {widest}",
            advice=f"Shrink {widest}: each position bin counts six times, the others once",
        )


def _index(name: str, values: ArrayLike, count: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.shape != (count,) or array.dtype.kind not in "ui":
        raise InputDataError(
            "an experience cannot be encoded",
            field=name,
            expected=f"integers[{max(count, 0)}]",
            got=f"{array.dtype}{list(array.shape)}",
        )
    return array.astype(np.int64)


def _bins(
    name: str, values: ArrayLike, low: float, high: float, bins: int, shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """Index of the bin of each value; the last bin holds its upper end too."""
    array = np.asarray(values)
    if array.shape != shape or array.dtype.kind not in "fui":
        raise InputDataError(
            "an experience cannot be encoded",
            field=name,
            expected=f"float{[max(side, 0) for side in shape]}",
            got=f"{array.dtype}{list(array.shape)}",
        )
    if array.size and not (array.min() >= low and array.max() <= high):  # NaN fails both
        raise InputDataError(
            "an experience cannot be encoded",
            field=name,
            expected=f"{low:g} to {high:g}",
            got="a number out of range or not finite",
        )
    # Always in float64: a site that stores float32 must find the same bin.
    place = (array.astype(np.float64) - low) / (high - low) * bins
    return np.minimum(place.astype(np.int64), bins - 1)

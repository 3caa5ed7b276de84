"""The name of a situation of a search as a 64-bit key: equal situations, equal keys, everywhere.

Two ways to name one. By *offset*: how far the search stands from what it looks for,
counted in steps of its level, and what it does there; equal keys are equal problems,
wherever in an image they are met. By *place*: roughly where in the image it stands, as a
fraction of the extent; what is counted then is where things lie. Nothing else of an image
enters a key: no intensity, no case, no site.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError
from common.keys.mixed_radix import MixedRadix

_AXES: Final = ("z", "y", "x")


class DecodedOffsets(NamedTuple):
    """Situations by offset, decoded.

    landmark, level, action: int64[n].
    steps: int64[n, axes], from the target, within plus or minus the reach.
    """

    landmark: NDArray[np.int64]
    level: NDArray[np.int64]
    steps: NDArray[np.int64]
    action: NDArray[np.int64]


class DecodedPlaces(NamedTuple):
    """Situations by place, decoded.

    landmark, level: int64[n].
    position: float64[n, 3], fractions of the image extent, the middles of their bins.
    """

    landmark: NDArray[np.int64]
    level: NDArray[np.int64]
    position: NDArray[np.float64]


class OffsetCodec:
    """Bijection between situations by offset and keys.

    Args:
        landmarks: different things that are looked for.
        levels: rungs of the ladder.
        actions: of an agent.
        axes: along which it steps.
        reach_steps: steps that are told apart on either side of the target; what is
            further away counts as that far.

    Raises:
        InputDataError: a number below 1, or more than 64 bits; names what to shrink.
    """

    def __init__(
        self, landmarks: int, levels: int, actions: int, axes: int, reach_steps: int
    ) -> None:
        self._sizes: Final = {
            "landmarks": landmarks,
            "levels": levels,
            "actions": actions,
            "axes": axes,
            "reach_steps": reach_steps,
        }
        _check(self._sizes)
        bins = 2 * reach_steps + 1
        wide = bins**axes
        _check_size({"landmarks": landmarks, "levels": levels, "actions": actions,
                     "reach_steps": wide})  # fmt: skip
        self._reach = reach_steps
        # What is looked for comes last, in the high digits.
        fields = [("action", actions), *((f"steps-{k}", bins) for k in range(axes))]
        fields += [("level", levels), ("landmark", landmarks)]
        self.digits: Final = MixedRadix([r for _, r in fields], [name for name, _ in fields])
        self.identity: Final = _identity("offset", self.digits)

    def __repr__(self) -> str:
        return f"OffsetCodec({', '.join(f'{k}={v}' for k, v in self._sizes.items())})"

    def encode(
        self, landmark: ArrayLike, level: ArrayLike, steps: ArrayLike, action: ArrayLike
    ) -> NDArray[np.uint64]:
        """Keys of n situations.

        Args:
            landmark: integers[n].
            level: integers[n].
            steps: float[n, axes], from the target, in steps of the level; any size.
            action: integers[n].

        Returns:
            uint64[n].

        Raises:
            InputDataError: lengths differ, a number is out of range or not finite.
        """
        count = _count(landmark)
        values = _floats("steps", steps, (count, self._sizes["axes"]))
        if not np.isfinite(values).all():
            raise _refused("steps", "finite numbers", "others")
        # Halves go to the even neighbour, alike on every machine.
        whole = np.rint(np.clip(values, -self._reach, self._reach)).astype(np.int64) + self._reach
        columns = [
            _index("action", action, count)[:, None],
            whole,
            _index("level", level, count)[:, None],
            _index("landmark", landmark, count)[:, None],
        ]
        return self.digits.encode(np.concatenate(columns, axis=1))

    def decode(self, keys: ArrayLike) -> DecodedOffsets:
        """Return the situations behind ``keys`` uint64[n]; encoding them gives the same keys.

        Raises:
            InputDataError: not uint64[n], or keys of another codec.
        """
        digits = self.digits.decode(keys).astype(np.int64)
        return DecodedOffsets(
            landmark=digits[:, -1],
            level=digits[:, -2],
            steps=digits[:, 1:-2] - self._reach,
            action=digits[:, 0],
        )


class PlaceCodec:
    """Bijection between situations by place and keys.

    Args:
        landmarks: different things that are looked for.
        levels: rungs of the ladder.
        position_bins: per axis of the image.

    Raises:
        InputDataError: a number below 1, or more than 64 bits; names what to shrink.
    """

    def __init__(self, landmarks: int, levels: int, position_bins: int) -> None:
        self._sizes: Final = {
            "landmarks": landmarks,
            "levels": levels,
            "position_bins": position_bins,
        }
        _check(self._sizes)
        _check_size({**self._sizes, "position_bins": position_bins**3})
        fields = [(axis, position_bins) for axis in _AXES]
        fields += [("level", levels), ("landmark", landmarks)]
        self.digits: Final = MixedRadix([r for _, r in fields], [name for name, _ in fields])
        self.identity: Final = _identity("place", self.digits)

    def __repr__(self) -> str:
        return f"PlaceCodec({', '.join(f'{k}={v}' for k, v in self._sizes.items())})"

    def encode(
        self, landmark: ArrayLike, level: ArrayLike, position: ArrayLike
    ) -> NDArray[np.uint64]:
        """Keys of n situations.

        Args:
            landmark: integers[n].
            level: integers[n].
            position: float[n, 3], 0 to 1 along z, y and x of the image.

        Returns:
            uint64[n].

        Raises:
            InputDataError: lengths differ, a number is out of range or not finite.
        """
        count, bins = _count(landmark), self._sizes["position_bins"]
        values = _floats("position", position, (count, 3))
        if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails both
            raise _refused("position", "0 to 1", "a number out of range or not finite")
        columns = [
            # The last bin holds its upper end, too.
            np.minimum((values * bins).astype(np.int64), bins - 1),
            _index("level", level, count)[:, None],
            _index("landmark", landmark, count)[:, None],
        ]
        return self.digits.encode(np.concatenate(columns, axis=1))

    def decode(self, keys: ArrayLike) -> DecodedPlaces:
        """Return the situations behind ``keys`` uint64[n]; encoding them gives the same keys.

        Raises:
            InputDataError: not uint64[n], or keys of another codec.
        """
        digits = self.digits.decode(keys).astype(np.int64)
        return DecodedPlaces(
            landmark=digits[:, 4],
            level=digits[:, 3],
            position=(digits[:, :3] + 0.5) / self._sizes["position_bins"],
        )


SituationCodec = OffsetCodec | PlaceCodec


def _identity(kind: str, digits: MixedRadix) -> str:
    return sha256_hex(canonical_json({"digits": digits.identity, "kind": f"experience by {kind}"}))


def _check(sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise InputDataError(
                "no such experience codec",
                field=name,
                expected="an integer of at least 1",
                got=f"{size}" if type(size) is int else type(size).__name__,
            )


def _check_size(parts: dict[str, int]) -> None:
    """Refuse more than 64 bits; the numbers of a key's values that each size makes."""
    product = 1
    for size in parts.values():
        product *= size
    if product > 2**64:
        widest = max(parts, key=lambda name: parts[name])
        raise InputDataError(
            "experience keys do not fit into 64 bits",
            field=widest,
            expected="fewer",
            got=f"{product.bit_length()} bits, {parts[widest].bit_length()} of them from {widest}",
            advice=f"Shrink {widest}",
        )


def _refused(field: str, expected: str, got: str) -> InputDataError:
    return InputDataError(
        "an experience cannot be encoded", field=field, expected=expected, got=got
    )


def _count(landmark: ArrayLike) -> int:
    shape = np.asarray(landmark).shape
    return shape[0] if len(shape) == 1 else -1


def _index(name: str, values: ArrayLike, count: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.shape != (count,) or array.dtype.kind not in "ui":
        raise _refused(name, f"integers[{max(count, 0)}]", f"{array.dtype}{list(array.shape)}")
    return array.astype(np.int64)


def _floats(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return numbers as float64: a site that stores float32 must find the same bin."""
    array = np.asarray(values)
    if array.shape != shape or array.dtype.kind not in "fui":
        form = f"float{[max(side, 0) for side in shape]}"
        raise _refused(name, form, f"{array.dtype}{list(array.shape)}")
    return array.astype(np.float64)

"""The rules of a codebook: every check, and the limits, in one place.

Called by ``codebook`` alone, when one is made or read and when keys are looked up. No
codebook is made here, and a refusal never quotes a key.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import InputDataError
from common.keys.mixed_radix import MixedRadix

MAX_KEYS: Final = 1 << 20
MAX_CLUSTERS: Final = 4096
MAX_GROUPS: Final = 256  # a group is a uint8
MAX_RADIX: Final = 4096  # so that squared distances fit 31 bits
MAX_NAME: Final = 64
_IDENTITY: Final = re.compile(r"[0-9a-f]{64}")

U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]


def unusable(what: str, expected: str, got: str, advice: str = "") -> InputDataError:
    """Return the refusal of a codebook: which part, and what it should be."""
    return InputDataError(
        "unusable codebook", field=what, expected=expected, got=got, advice=advice
    )


def kinds(*arrays: NDArray[np.generic]) -> str:
    """Types and shapes, in words."""
    return " and ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)


def check_codec(digits: MixedRadix, codec: str) -> None:
    """Refuse what is no digest, and digits whose squared distances would overflow.

    Raises:
        InputDataError: names which.
    """
    if not isinstance(codec, str) or not _IDENTITY.fullmatch(codec):
        raise unusable("codec", "64 lower-case hex digits", "something else")
    if max(digits.radices) > MAX_RADIX:
        raise unusable(
            "digits", f"radices of at most {MAX_RADIX}", f"a radix of {max(digits.radices)}"
        )


def checked_keys(digits: MixedRadix, keys: U64, clusters: ArrayLike) -> tuple[U64, I32]:
    """Both as read-only arrays of their own.

    Raises:
        InputDataError: not ascending keys of the codec, or ids with a gap.
    """
    unique, ids = np.array(keys), np.array(clusters)
    if (
        unique.ndim != 1
        or unique.dtype != np.uint64
        or ids.shape != unique.shape
        or ids.dtype.kind not in "ui"
    ):
        raise unusable("keys and clusters", "uint64[n] and integers[n]", kinds(unique, ids))
    if not 1 <= unique.size <= MAX_KEYS:
        raise unusable("keys", f"1 to {MAX_KEYS} keys", f"{unique.size} keys")
    if not (unique[1:] > unique[:-1]).all():
        raise unusable("keys", "ascending, each once", "repeats or another order")
    if int(unique[-1]) >= digits.size:
        raise unusable("keys", f"below {digits.size}", "a key of another codec")
    count = int(ids.max()) + 1
    if ids.min() < 0 or count > MAX_CLUSTERS or np.unique(ids).size != count:
        raise unusable(
            "clusters",
            f"ids from 0 without a gap, at most {MAX_CLUSTERS}",
            f"{np.unique(ids).size} ids from {int(ids.min())} to {count - 1}",
        )
    fixed = ids.astype(np.int32)
    unique.flags.writeable = fixed.flags.writeable = False
    return unique, fixed


def check_groups(names: tuple[str, ...], of: tuple[int, ...], clusters: int) -> None:
    """Refuse groups that do not name every cluster once; none at all is fine.

    Raises:
        InputDataError: names what does not fit.
    """
    if not names and not of:
        return
    for name in names:
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise unusable(
                "group_names", f"1 to {MAX_NAME} printable characters each", "another name"
            )
    if len(set(names)) != len(names) or not 1 <= len(names) <= MAX_GROUPS:
        raise unusable("group_names", f"1 to {MAX_GROUPS} different names", f"{len(names)} names")
    ids = set(of)
    if (
        len(of) != clusters
        or any(type(group) is not int for group in of)
        or ids != set(range(len(names)))
    ):
        raise unusable(
            "group_of",
            f"a group of each of {clusters} clusters, no group without one",
            f"{len(of)} entries for {len(names)} groups",
        )


def checked_queries(digits: MixedRadix, keys: ArrayLike) -> U64:
    """Keys to look up, uint64[n].

    Raises:
        InputDataError: another type or shape, or a key of another codec.
    """
    array = np.asarray(keys)
    if array.ndim != 1 or array.dtype != np.uint64:
        raise InputDataError(
            "keys cannot be looked up", field="keys", expected="uint64[n]", got=kinds(array)
        )
    if array.size and int(array.max()) >= digits.size:
        raise InputDataError(
            "keys cannot be looked up",
            field="keys",
            expected=f"below {digits.size}",
            got="a key of another codec",
        )
    return array

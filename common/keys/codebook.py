"""From keys to tissue: which cluster, and which named group, a key belongs to.

A coordinator makes a codebook from the frequent keys of a federation, names its
clusters, and sends it to the sites, which embed whole slides with it. A key that
is not in it takes the cluster of the nearest one that is, so every key of the
codec has exactly one cluster. May not live here: how clusters are found
(``aggregator.embedding``), how a pixel becomes a key, any count, any key that the
sites did not release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.errors import CairnError, VerificationError
from common.keys.codebook_rules import (
    I32,
    U64,
    check_codec,
    check_groups,
    checked_keys,
    checked_queries,
    kinds,
    unusable,
)
from common.keys.mixed_radix import MixedRadix

if TYPE_CHECKING:
    from common.keys.nearest import NearestKey

KIND: Final = "codebook"
VERSION: Final = 1
MAX_BYTES: Final = 1 << 25  # what the most keys need, and little more
_CHUNK: Final = 1 << 20  # keys looked up at a time


@dataclass(frozen=True, eq=False)
class Codebook:
    """Keys, their clusters, and names for groups of clusters. Two are equal when their bytes are.

    Attributes:
        digits: how a key is read; keys are near each other when their digits are.
        codec: identity of the codec that makes the keys; ``digits.identity`` by default.
            It covers more than the digits where a codec does (a projection, ranges).
        keys: uint64[n], ascending, each once; read-only.
        clusters: int32[n], cluster of each key; ids run from 0 without a gap; read-only.
        group_names: names of the groups, by group id; empty before ``label``.
        group_of: group id of each cluster; empty before ``label``.

    Raises:
        InputDataError: anything that does not fit together; use ``make`` for keys in any order.
    """

    digits: MixedRadix
    keys: U64 = field(repr=False)
    clusters: I32 = field(repr=False)
    codec: str = ""
    group_names: tuple[str, ...] = ()
    group_of: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "codec", self.codec or self.digits.identity)
        check_codec(self.digits, self.codec)
        keys, clusters = checked_keys(self.digits, self.keys, self.clusters)
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "clusters", clusters)
        object.__setattr__(self, "group_names", tuple(self.group_names))
        object.__setattr__(self, "group_of", tuple(self.group_of))
        check_groups(self.group_names, self.group_of, self.cluster_count)

    @classmethod
    def make(
        cls, digits: MixedRadix, keys: ArrayLike, clusters: ArrayLike, codec: str = ""
    ) -> Self:
        """Return a codebook without groups, from keys in any order.

        Args:
            digits: how a key is read.
            keys: uint64[n], each once.
            clusters: integers[n], 0 to the number of clusters less one, each of them used.
            codec: identity of the codec that makes the keys; ``digits.identity`` if empty.

        Raises:
            InputDataError: keys, clusters or codec that do not fit together.
        """
        unsorted, ids = np.asarray(keys), np.asarray(clusters)
        if unsorted.ndim != 1 or unsorted.dtype != np.uint64 or ids.shape != unsorted.shape:
            raise unusable("keys and clusters", "uint64[n] and integers[n]", kinds(unsorted, ids))
        order = np.argsort(unsorted, kind="stable")
        return cls(digits, unsorted[order], ids[order], codec)

    @cached_property
    def cluster_count(self) -> int:
        """Number of clusters."""
        return int(self.clusters.max()) + 1

    @property
    def labelled(self) -> bool:
        """True if every cluster belongs to a named group."""
        return bool(self.group_names)

    def __repr__(self) -> str:
        groups = ", ".join(self.group_names) or "unnamed"
        return f"Codebook({self.keys.size} keys, {self.cluster_count} clusters, groups: {groups})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codebook) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def label(self, groups: Mapping[int, str], order: Sequence[str] = ()) -> Self:
        """Return the same codebook with every cluster in a named group.

        Args:
            groups: name of each cluster's group; several clusters may share one.
            order: the names by group id, from 0. Alphabetical by default, so that
                ``{"other", "tumour"}`` become 0 and 1 whoever writes them down.

        Raises:
            InputDataError: a cluster left out or unknown, or names that are not usable.
        """
        everyone = set(range(self.cluster_count))
        if set(groups) != everyone:
            missing = sorted(everyone - set(groups))
            raise unusable(
                "groups",
                f"a name for each of the clusters 0 to {self.cluster_count - 1}",
                f"none for {missing[:8]}" if missing else "a cluster that does not exist",
                "Name every cluster; a group may hold several",
            )
        names = tuple(order) or tuple(sorted(set(groups.values())))
        if set(names) != set(groups.values()) or len(set(names)) != len(names):
            raise unusable("order", "each group's name once", f"{len(names)} names")
        of = tuple(names.index(groups[cluster]) for cluster in sorted(everyone))
        return type(self)(self.digits, self.keys, self.clusters, self.codec, names, of)

    def lookup(self, keys: ArrayLike) -> I32:
        """Cluster of every key.

        Exact: a key that is not in the codebook takes the cluster of the known key with
        the smallest squared Euclidean distance between their digits, the smallest key of
        several. Memory stays bounded, whatever the number of keys; several threads may
        look up at once.

        Args:
            keys: uint64[n], any order, repeats allowed.

        Returns:
            int32[n].

        Raises:
            InputDataError: not uint64[n], or a key that the codec does not have.
        """
        array = checked_queries(self.digits, keys)
        out = np.empty(array.size, np.int32)
        for start in range(0, array.size, _CHUNK):
            piece = array[start : start + _CHUNK]
            out[start : start + _CHUNK] = self.clusters[self._places.find(piece)]
        return out

    def groups(self, keys: ArrayLike) -> NDArray[np.uint8]:
        """Group id of every key, uint64[n] -> uint8[n]; ``group_names`` says what they mean.

        Raises:
            InputDataError: as ``lookup``, or the codebook has no groups yet.
        """
        if not self.labelled:
            raise unusable("groups", "named", "clusters without groups", "Label it first")
        groups: NDArray[np.uint8] = np.array(self.group_of, np.uint8)[self.lookup(keys)]
        return groups

    def require_codec(self, identity: str) -> None:
        """Refuse to be used for keys of another codec.

        Raises:
            InputDataError: ``identity`` is not that of this codebook's codec.
        """
        if identity != self.codec:
            raise unusable(
                "codec",
                f"{self.codec[:16]}…, which its keys were made with",
                f"{identity[:16]}…",
                "Use the codebook that was made with this plan's codec",
            )

    @cached_property
    def _bytes(self) -> bytes:
        return canonical_json(
            {
                "clusters": self.clusters.tolist(),
                "codec": self.codec,
                "digits": {
                    "names": list(self.digits.names),
                    # Text, because JSON numbers are exact only below 2**53.
                    "radices": [str(radix) for radix in self.digits.radices],
                },
                "group_names": list(self.group_names),
                "group_of": list(self.group_of),
                "keys": [str(key) for key in self.keys.tolist()],
                "kind": KIND,
                "version": VERSION,
            }
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal codebooks have equal bytes."""
        return self._bytes

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes, 64 hex digits."""
        return sha256_hex(self._bytes)

    @classmethod
    def from_bytes(cls, data: bytes, codec: str | None = None) -> Self:
        """Read what ``to_bytes`` wrote.

        Args:
            data: the bytes.
            codec: refuse a codebook of any other codec than this one.

        Raises:
            InputDataError: not the canonical bytes of a codebook, or of another codec.
        """
        if len(data) > MAX_BYTES:
            raise unusable("data", f"at most {MAX_BYTES} bytes", f"{len(data)} bytes")
        try:
            book = cls._read(parse_canonical_json(data, KIND))
        except VerificationError as error:
            raise unusable("data", "the bytes of a codebook", "other bytes") from error
        if book.to_bytes() != data:
            raise unusable("data", "exactly the fields of a codebook", "other fields")
        if codec is not None:
            book.require_codec(codec)
        return book

    @classmethod
    def _read(cls, value: object) -> Self:
        try:
            if not isinstance(value, dict) or value["kind"] != KIND:
                raise unusable("kind", KIND, "another document")
            if value["version"] != VERSION:
                raise unusable("version", f"{VERSION}", "another version")
            digits = MixedRadix(
                [int(radix) for radix in value["digits"]["radices"]], value["digits"]["names"]
            )
            return cls(
                digits,
                np.array([int(key) for key in value["keys"]], np.uint64),
                np.array(value["clusters"], np.int64),
                value["codec"],
                tuple(value["group_names"]),
                tuple(value["group_of"]),
            )
        except CairnError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise unusable("data", "the fields of a codebook", "other fields") from error

    @cached_property
    def _places(self) -> NearestKey:
        from common.keys.nearest import NearestKey  # compiles kernels: only for those who look up

        return NearestKey(self.digits, self.keys)

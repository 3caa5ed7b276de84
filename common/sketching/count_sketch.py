"""The count sketch: a table of signed counters that adds up across sites.

A linear map of a stream's histogram, so the sketch of two sites' streams is the
sum of their sketches, bit for bit. Nothing here sends, saves or adds noise, and
nothing here logs a key, an estimate or a counter.

Source: Charikar, Chen & Farach-Colton, ICALP 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import SketchError
from common.sketching import serial
from common.sketching.hashing import HashFunctions, hash_functions
from common.sketching.inputs import checked_integers, checked_threads, checked_weights
from common.sketching.spec import SketchSpec


class CountSketch:
    """Approximate counts of 64-bit keys in R x C signed counters.

    Counters are int64 and wrap modulo 2**64; addition stays exact under the
    wrap, which is what additive masking relies on.

    Args:
        spec: dimensions and key. Without the key a sketch can be added,
            subtracted, cleared and serialised, and nothing else.
    """

    def __init__(self, spec: SketchSpec) -> None:
        self._spec = spec
        self._table = np.zeros((spec.rows, spec.columns), np.int64)
        self._functions: HashFunctions | None = None

    @classmethod
    def from_table(cls, spec: SketchSpec, table: NDArray[np.int64]) -> Self:
        """Return a sketch that holds a copy of ``table``, int64[rows, columns].

        Raises:
            SketchError: another type or shape.
        """
        if (
            not isinstance(table, np.ndarray)
            or table.dtype != np.int64
            or table.shape != (spec.rows, spec.columns)
        ):
            got = (
                f"{table.dtype}{list(table.shape)}"
                if isinstance(table, np.ndarray)
                else type(table).__name__
            )
            raise SketchError(
                "not a table of this sketch",
                field="table",
                expected=f"int64[{spec.rows}, {spec.columns}]",
                got=got,
            )
        sketch = cls.__new__(cls)
        sketch._spec = spec
        sketch._table = np.array(table, dtype=np.int64, order="C")
        sketch._functions = None
        return sketch

    @classmethod
    def from_bytes(cls, data: bytes, spec: SketchSpec) -> Self:
        """Read what ``to_bytes`` wrote.

        Raises:
            SketchError: any difference from ``spec`` in the header, or any byte
                beside header and counters.
        """
        return cls.from_table(spec, serial.decode(data, spec))

    def to_bytes(self) -> bytes:
        """Safetensors bytes; equal tables of equal specs have equal bytes."""
        return serial.encode(self._spec, self._table)

    @property
    def spec(self) -> SketchSpec:
        """Everything that this sketch must share with another to be added to it."""
        return self._spec

    @property
    def table(self) -> NDArray[np.int64]:
        """The counters, int64[rows, columns]: a live view that cannot be written to."""
        view = self._table.view()
        view.flags.writeable = False
        return view

    def __repr__(self) -> str:
        return f"CountSketch({self._spec!r})"

    def update(self, keys: ArrayLike, weights: ArrayLike | None = None, threads: int = 1) -> None:
        """Add a batch of keys.

        Args:
            keys: uint64[n] (or another non-negative integer type), any order, repeats allowed.
            weights: int64[n], 1 per key when omitted; negative weights take away.
            threads: 1 to 64. Each beyond the first costs one more table.

        Raises:
            SketchError: no federation key, lengths differ, or not integers.
        """
        functions = self._hash()
        from common.sketching import engine  # compiles kernels: only for those who update

        checked = checked_integers(keys, "keys", signed=False)
        amounts = None if weights is None else checked_weights(weights, checked.size)
        engine.update(self._table, functions, checked, amounts, checked_threads(threads))

    def update_stream(
        self,
        chunks: Iterable[ArrayLike],
        threads: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Add a long stream chunk by chunk; on an error the table stays as it was.

        Args:
            chunks: arrays of keys, as for ``update``. Larger than 100,000 keys each is best.
            threads: 1 to 64; each costs one table while the stream lasts.
            progress: called with the number of keys so far after every chunk.

        Returns:
            Number of keys added.

        Raises:
            SketchError: as ``update``.
        """
        functions = self._hash()
        from common.sketching import engine

        count = checked_threads(threads)
        return engine.update_stream(self._table, functions, chunks, count, progress)

    def estimate(self, keys: ArrayLike) -> NDArray[np.float64]:
        """Estimated counts: the median over rows, the mean of the middle two for even R.

        Args:
            keys: uint64[n].

        Returns:
            float64[n]. With g = norm of all counts but the k largest / sqrt(C), a row
            is off by more than t * g with probability at most k / C + 1 / t**2, and an
            estimate only if half of the rows are.

        Raises:
            SketchError: no federation key, or not integers.
        """
        functions = self._hash()
        from common.sketching import engine

        checked = checked_integers(keys, "keys", signed=False)
        return engine.estimate(self._table, functions, checked)

    def select(
        self, keys: ArrayLike, threshold: float
    ) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Pick those of ``keys`` whose estimate is at least ``threshold``, with their estimates.

        Faster than ``estimate`` where most keys fall short. Keeps the order.

        Raises:
            SketchError: no federation key, or not integers.
        """
        functions = self._hash()
        from common.sketching import engine

        checked = checked_integers(keys, "keys", signed=False)
        return engine.select(self._table, functions, checked, threshold)

    def merge(self, other: CountSketch) -> None:
        """Add another sketch: now this is the sketch of both streams.

        Raises:
            SketchError: rows, columns, key id, domain or version differ.
        """
        self._spec.require_same(other.spec, "other")
        self._table += other._table

    def clear(self) -> None:
        """Back to the empty stream."""
        self._table.fill(0)

    def _hash(self) -> HashFunctions:
        if self._functions is None:
            self._functions = hash_functions(self._spec)
        return self._functions

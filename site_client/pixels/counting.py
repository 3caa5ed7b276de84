"""Counting a site's keys for the federation, in memory that does not grow with the slides.

Keys are counted exactly in a dictionary; when it is full, and at the end, the
counts move into tables that sites can add up. Only the tables may leave, through
the door. The dictionary holds keys in the clear and never leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError, SketchError
from common.keys.pixel_agreement import AnyCodec
from common.keys.pixel_bands import BandCodec
from common.keys.pixels import PixelCodec
from common.sketching import CountSketch, SketchSpec
from common.sketching.dictionary import KeyDictionary
from common.sketching.hashing import hash_functions
from common.sketching.inputs import checked_threads
from common.sketching.recovery import RecoverySketch
from site_client.pixels.encode import PixelEncoder
from site_client.pixels.lanes import shared_out
from site_client.pixels.smoothing import smoothed
from site_client.pixels.source import PixelSource
from site_client.pixels.statistics import Progress, require_bands

PRESENCE_FLOOR: Final = 10
DISTINCT: Final = 1 << 20  # keys in the dictionary: at most 48 MiB
_SEEN_BITS: Final = 28  # 2**28 bits: 32 MiB
_PROBES: Final = 4

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PixelTables:
    """A site's word about its keys: views that add up across sites.

    Attributes:
        views: full sketch, sketches of key prefixes, exact histogram of short prefixes.
        presence: sketch in which a site counts each of its keys once.
    """

    views: RecoverySketch
    presence: CountSketch

    @classmethod
    def empty(cls, codec: AnyCodec, spec: SketchSpec) -> PixelTables:
        """Tables of no pixels.

        Args:
            codec: of the keys; at least 3 digits.
            spec: dimensions and key of the sketches; its domain is replaced by the
                codec's identity, so that tables of different codecs cannot be added.

        Raises:
            SketchError: too few digits for prefixes.
        """
        radices = codec.digits.radices
        if len(radices) < 3:
            raise SketchError(
                "too few digits to recover keys by their prefixes",
                field="components or bands",
                expected="at least 3",
                got=f"{len(radices)}",
            )
        named = replace(spec, domain=codec.identity)
        counted, *rungs = codec.ladder
        views = RecoverySketch(named, radices, rungs, counted)
        return cls(views, CountSketch(replace(spec, domain=f"{codec.identity}/presence")))

    @property
    def sketches(self) -> tuple[CountSketch, ...]:
        """Full, prefixes from the shortest on, presence: as a plan names its tables."""
        return (self.views.full, *self.views.prefixes, self.presence)

    def merge(self, other: PixelTables) -> None:
        """Add another site's tables.

        Raises:
            SketchError: of another codec, key or dimensions.
        """
        self.presence.spec.require_same(other.presence.spec, "other.presence")
        self.views.merge(other.views)
        self.presence.merge(other.presence)


class PixelCounter:
    """Counts keys into `PixelTables`.

    Args:
        codec: of the keys.
        spec: dimensions and key of the sketches.
        presence_floor: pixels that a key needs at this site to count as present. Less
            than a few fills the presence sketch with rare keys until it cannot tell one
            site from two, and the release refuses.
        distinct: keys counted exactly at a time.

    Raises:
        SketchError: no federation key, or a limit out of range.

    While fewer than ``distinct`` different keys occur, presence is exact. Beyond, a
    key's count so far is the sketch's estimate, and one key in many may be taken for
    one that was counted present before: presence then errs towards too few.
    """

    def __init__(
        self,
        codec: AnyCodec,
        spec: SketchSpec,
        presence_floor: int = PRESENCE_FLOOR,
        distinct: int = DISTINCT,
    ) -> None:
        if type(presence_floor) is not int or presence_floor < 1:
            raise SketchError(
                "unusable presence floor", field="presence_floor", expected="at least 1", got="less"
            )
        self._codec, self._spec = codec, spec
        self._tables = PixelTables.empty(codec, spec)
        functions = hash_functions(self._tables.presence.spec)
        self._exact = KeyDictionary(distinct, functions.k0)
        self._seen: _Seen | None = None
        self._salt = functions.k1
        self._floor = presence_floor
        self.pixels = 0

    def add(self, keys: U64) -> None:
        """Count keys of foreground pixels, uint64[n].

        Raises:
            InputDataError: a key that the codec does not have.
        """
        limit = self._codec.digits.size
        if keys.size and int(keys.max()) >= limit:
            raise InputDataError(
                "not keys of this codec", field="keys", expected=f"below {limit}", got="more"
            )
        rest = keys
        while (done := self._exact.count(rest)) < rest.size:
            rest = rest[done:]
            self._flush()
            self._exact.clear()
        self.pixels += keys.size

    def tables(self) -> PixelTables:
        """Return the tables of everything counted; the counter is empty afterwards."""
        self._flush(last=True)
        self._exact.clear()
        self._seen = None
        done = self._tables
        self._tables = PixelTables.empty(self._codec, self._spec)
        self.pixels = 0
        return done

    def _flush(self, *, last: bool = False) -> None:
        keys, counts = self._exact.items()
        views = self._tables.views
        views.update(keys, counts)
        present = counts >= self._floor
        if self._seen is None and not last:
            self._seen = _Seen(self._salt)
        if self._seen is None:
            self._tables.presence.update(keys[present])
            return
        if self._floor > 1:  # earlier counts of these keys are in the sketch alone
            present |= views.full.estimate(keys) >= self._floor
        self._tables.presence.update(self._seen.fresh(keys[present]))


class _Seen:
    """The keys that were here before, in fixed memory: a Bloom filter, keyed.

    A key that was here is always known; a new one is mistaken for an old one with a
    probability that stays below 1 in 1,000 for 10 million keys.
    Source: Bloom, Commun. ACM 1970.
    """

    def __init__(self, salt: np.uint64) -> None:
        self._bits = np.zeros(1 << (_SEEN_BITS - 3), np.uint8)
        self._salt = salt

    def fresh(self, keys: U64) -> U64:
        """Pick those of the different ``keys`` that are new; from now on they are old."""
        x = keys ^ self._salt  # then the splitmix64 finaliser
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        step = (x >> np.uint64(32)) | np.uint64(1)
        seen = np.ones(keys.size, np.bool_)
        places = []
        for _ in range(_PROBES):
            place = (x & np.uint64((1 << _SEEN_BITS) - 1)).astype(np.int64)
            seen &= (self._bits[place >> 3] >> (place & 7).astype(np.uint8)) & 1 == 1
            places.append(place)
            x = x + step
        for place in places:
            new = place[~seen]
            bits = np.uint8(1) << (new & 7).astype(np.uint8)
            np.bitwise_or.at(self._bits, new >> 3, bits)
        return keys[~seen]


def keys_of(
    slide: PixelSource,
    codec: AnyCodec,
    progress: Progress | None = None,
    threads: int = 1,
) -> Iterator[tuple[U64, NDArray[np.bool_]]]:
    """Keys of a slide, chunk by chunk in order, while the next chunks are being read.

    Args:
        slide: with the codec's bands.
        codec: whose keys; it says how bands are smoothed first.
        progress: called with the number of pixels done after every chunk.
        threads: 1 to 64 that encode; keys do not depend on it.

    Yields:
        uint64[foreground] and bool[n]: keys, and which pixels of the chunk are foreground.

    Raises:
        InputDataError: other bands, an unreadable slide, or floats that do not fit.
        SketchError: an impossible number of threads.
    """
    require_bands(slide, codec.bands)
    whole = smoothed(slide, codec.smoothing, codec.scale)
    done = 0
    lanes = [_encoder(codec).encode for _ in range(checked_threads(threads))]
    with closing(shared_out(whole.chunks(), lanes)) as results:
        for result in results:
            yield result
            done += result[1].size
            if progress is not None:
                progress(done)


def _encoder(codec: AnyCodec) -> PixelEncoder | BandCodec:
    return PixelEncoder(codec) if isinstance(codec, PixelCodec) else codec


def count_slides(
    slides: Iterable[PixelSource],
    counter: PixelCounter,
    codec: AnyCodec,
    progress: Callable[[int, int], None] | None = None,
    threads: int = 1,
) -> int:
    """Count the keys of slides; returns the number of foreground pixels.

    Args:
        slides: opened one after the other.
        counter: for the codec's keys.
        codec: whose keys.
        progress: called with (slide, pixels of it done) after every chunk.
        threads: 1 to 64 that encode.

    Raises:
        InputDataError: as ``keys_of``.
    """
    before = counter.pixels
    for number, slide in enumerate(slides):

        def tell(done: int, number: int = number) -> None:
            if progress is not None:
                progress(number, done)

        for keys, _ in keys_of(slide, codec, tell, threads):
            counter.add(keys)
    return counter.pixels - before

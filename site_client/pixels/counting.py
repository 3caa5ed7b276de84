"""Counting a site's keys for the federation, in memory that does not grow with the slides.

Keys are counted exactly, in memory and then on disk; at the end the counts move into
tables that sites can add up. Only the tables may leave, through the door. The counts hold
keys in the clear and never leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError, SketchError
from common.keys.pixel_agreement import AnyCodec
from common.keys.pixel_bands import BandCodec
from common.keys.pixels import PixelCodec
from common.sketching import CountSketch, SketchSpec
from common.sketching.hashing import hash_functions
from common.sketching.inputs import checked_threads
from common.sketching.recovery import RecoverySketch
from site_client.pixels.encode import PixelEncoder
from site_client.pixels.lanes import shared_out
from site_client.pixels.smoothing import smoothed
from site_client.pixels.source import PixelSource
from site_client.pixels.statistics import Progress, require_bands
from site_client.pixels.tallies import Counted, KeyTally

PRESENCE_FLOOR: Final = 10
DISTINCT: Final = 1 << 20  # keys in the dictionary: at most 48 MiB

U64 = NDArray[np.uint64]


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
    """Counts keys into `PixelTables`, exactly: presence, too, however many keys there are.

    Args:
        codec: of the keys.
        spec: dimensions and key of the sketches.
        presence_floor: pixels that a key needs at this site to count as present. Less
            than a few fills the presence sketch with rare keys until it cannot tell one
            site from two, and the release refuses.
        distinct: keys counted in memory at a time.
        folder: where the others wait, in files without a name; the system's own when omitted.

    Raises:
        SketchError: no federation key, or a limit out of range.
    """

    def __init__(
        self,
        codec: AnyCodec,
        spec: SketchSpec,
        presence_floor: int = PRESENCE_FLOOR,
        distinct: int = DISTINCT,
        folder: Path | None = None,
    ) -> None:
        if type(presence_floor) is not int or presence_floor < 1:
            raise SketchError(
                "unusable presence floor", field="presence_floor", expected="at least 1", got="less"
            )
        self._codec, self._spec = codec, spec
        presence = PixelTables.empty(codec, spec).presence
        self._tally = KeyTally(distinct, hash_functions(presence.spec).k0, folder)
        self._floor = presence_floor
        self.pixels = 0

    def add(self, keys: U64) -> None:
        """Count keys of foreground pixels, uint64[n].

        Raises:
            InputDataError: a key that the codec does not have, or no room on disk.
        """
        limit = self._codec.digits.size
        if keys.size and int(keys.max()) >= limit:
            raise InputDataError(
                "not keys of this codec", field="keys", expected=f"below {limit}", got="more"
            )
        self._tally.add(keys)
        self.pixels += keys.size

    def drain(self) -> Iterator[Counted]:
        """Yield the different keys, ascending, and their counts; empty when it is done."""
        yield from self._tally.drain()
        self.pixels = 0

    def tables(self) -> PixelTables:
        """Return the tables of everything counted; the counter is empty afterwards."""
        return tables_of(self._codec, self._spec, self._floor, self.drain())


def tables_of(
    codec: AnyCodec, spec: SketchSpec, presence_floor: int, counted: Iterable[Counted]
) -> PixelTables:
    """Return the tables of a site's keys.

    Args:
        codec: of the keys.
        spec: dimensions and key of the sketches.
        presence_floor: pixels that a key needs to count as present.
        counted: every different key once, with its count of the whole site.

    Raises:
        SketchError: no federation key, or a key that the codec does not have.
    """
    tables = PixelTables.empty(codec, spec)
    for keys, counts in counted:
        tables.views.update(keys, counts)
        tables.presence.update(keys[counts >= presence_floor])
    return tables


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

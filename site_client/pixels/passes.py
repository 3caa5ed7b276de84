"""The passes over a site's slides, one result a slide, each kept until the pass is done.

What is found in a slide adds up: surveys and ranges as sums, keys as runs of counts. So a
pass that was interrupted loses the slide it was in, and a pass may be shared out to several
machines; the whole is the same in every bit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError, InternalError
from common.keys.pixel_agreement import AnyCodec
from common.keys.pixel_statistics import (
    INTENSITY_BINS,
    RANGE_BINS,
    ComponentRanges,
    PixelSurvey,
)
from common.keys.pixels import PixelCodec
from common.plan import Pixels
from common.sketching import SketchSpec
from site_client.pixels.checkpoints import Bond, Head, SealedResult, open_sealed, write_sealed
from site_client.pixels.counting import DISTINCT, PixelCounter, keys_of
from site_client.pixels.digests import (
    SlideDigest,
    add_file,
    add_head,
    digest_of,
    files_of,
    standing,
)
from site_client.pixels.slides import Slide
from site_client.pixels.statistics import Progress, component_ranges, survey
from site_client.pixels.tallies import PAIR, Counted, Run, as_bytes, merged

LOG = logging.getLogger("cairn.worker")


@dataclass(frozen=True)
class Counts:
    """Exact counts of keys, in runs that lie in files.

    Attributes:
        runs: to be merged.
        pixels: foreground pixels that were counted.
    """

    runs: tuple[Run, ...]
    pixels: int

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both."""
        return Counts(self.runs + other.runs, self.pixels + other.pixels)

    def merged(self) -> Iterator[Counted]:
        """Yield the different keys, ascending, with their counts."""
        return merged(self.runs)


Found = PixelSurvey | ComponentRanges | Counts


@dataclass(frozen=True)
class SlidePart:
    """A slide's share of a pass.

    Attributes:
        found: what was found in it.
        digest: of its files; None where they are not all known.
        pixels: of the slide, background included.
    """

    found: Found
    digest: str | None
    pixels: int


@dataclass(frozen=True)
class SlidePass:
    """One phase's pass over slides.

    Attributes:
        bond: what its results belong to; its phase says what is looked for.
        section: of the plan.
        codec: None in a survey.
        spec: of the sketches.
        folder: where results are kept; it exists.
        threads: that count; no result depends on it.
        distinct: keys in memory at a time.
    """

    bond: Bond
    section: Pixels
    codec: AnyCodec | None
    spec: SketchSpec
    folder: Path
    threads: int = 1
    distinct: int = DISTINCT

    def part(self, path: Path, slide: Slide, progress: Progress | None = None) -> SlidePart:
        """Look through a slide, unless its result is kept and still belongs to it.

        Args:
            path: of the slide.
            slide: opened there, with the plan's bands.
            progress: told how many of its pixels are done.

        Raises:
            InputDataError: the slide cannot be read, or changed meanwhile.
        """
        place = self.folder / part_name(path)
        if place.exists():
            earlier = self._kept(path, place)
            if earlier is not None:
                if progress is not None:
                    progress(slide.pixels)
                return earlier
        self._look_through(path, slide, place, progress)
        return read_part(open_sealed(place, self.bond), self.section, self.codec)

    def _kept(self, path: Path, place: Path) -> SlidePart | None:
        """Return the result that is kept, if it is whole and of this very slide."""
        try:
            sealed = open_sealed(place, self.bond)
            digest = digest_of(self.bond.secret, path)
            if digest is not None and sealed.head.get("digest") == digest:
                return read_part(sealed, self.section, self.codec)
        except InputDataError:
            pass
        LOG.warning("a kept result is not of this slide and counting; the slide is counted again")
        return None

    def _look_through(
        self, path: Path, slide: Slide, place: Path, progress: Progress | None
    ) -> None:
        files, before, digest = files_of(path), standing(path), SlideDigest(self.bond.secret)
        if files is not None and slide.show_bytes(digest.add):
            add_head(digest, path, path.parent)
            files = files[1:]
            sums, pieces = self._content(slide, progress)
            for file in files:
                add_file(digest, file, path.parent)
        else:
            for file in files or ():
                add_file(digest, file, path.parent)
            sums, pieces = self._content(slide, progress)
        if standing(path) != before:
            raise InputDataError(
                "a slide was changed while it was counted",
                field=str(path),
                expected="the same bytes until the end",
                got="others",
                advice="Count again once nobody writes into the data folder",
            )
        more: Head = {
            "digest": None if files is None else digest.hex(),
            "found": sums,
            "pixels": slide.pixels,
            "slide": path.name,
        }
        write_sealed(place, self.bond, more, pieces)

    def _content(self, slide: Slide, progress: Progress | None) -> tuple[int, Iterable[bytes]]:
        """Return the number of pixels that were taken, and what was found as bytes."""
        plan, codec = self.section, self.codec
        if codec is None:
            smoothing = plan.smoothing_thousandths
            return content_of(survey(slide, plan.value_scale, progress, smoothing, self.threads))
        if self.bond.phase == "range" and isinstance(codec, PixelCodec):
            return content_of(component_ranges(slide, codec.projection, progress, self.threads))
        counter = PixelCounter(codec, self.spec, plan.presence_floor, self.distinct, self.folder)
        for keys, _ in keys_of(slide, codec, progress, self.threads):
            counter.add(keys)
        return counter.pixels, (as_bytes(*counted) for counted in counter.drain())


def part_name(path: Path) -> str:
    """Name the file of a slide's result; says nothing about the slide."""
    return f"{sha256(path.name.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.part"


def read_part(sealed: SealedResult, section: Pixels, codec: AnyCodec | None) -> SlidePart:
    """Read what is kept of a slide, or of a whole site.

    Raises:
        InputDataError: another size than such a result has.
    """
    head = sealed.head
    pixels, sums, digest = head.get("pixels"), head.get("found"), head.get("digest")
    if type(pixels) is not int or type(sums) is not int or not isinstance(digest, str | None):
        raise _odd(sealed, "pixels, found and digest", "others")
    if head["phase"] == "sketch":
        if sealed.size % PAIR:
            raise _odd(sealed, f"a multiple of {PAIR} bytes", f"{sealed.size}")
        run = Run(sealed.path, sealed.offset, sealed.size // PAIR)
        return SlidePart(Counts((run,), sums), digest, pixels)
    bands = len(section.bands)
    if codec is None:
        gram, histogram = _arrays(sealed, (bands, bands), (INTENSITY_BINS,))
        smoothing = section.smoothing_thousandths
        of_bands = (section.bands, section.value_scale, sums)
        return SlidePart(PixelSurvey(*of_bands, histogram, gram, smoothing), digest, pixels)
    if not isinstance(codec, PixelCodec):
        raise InternalError("ranges of no components", expected="components", got="all bands")
    (histogram,) = _arrays(sealed, (len(codec.low), RANGE_BINS))
    return SlidePart(ComponentRanges(codec.projection.identity, sums, histogram), digest, pixels)


def content_of(sums: Found) -> tuple[int, Iterable[bytes]]:
    """Return the pixels that something found stands for, and its bytes, as a part has them."""
    if isinstance(sums, Counts):
        return sums.pixels, (as_bytes(*counted) for counted in sums.merged())
    if isinstance(sums, PixelSurvey):
        return sums.pixels, [_int64(sums.gram), _int64(sums.histogram)]
    return sums.pixels, [_int64(sums.histogram)]


@contextmanager
def place_for(folder: Path | None) -> Iterator[Path]:
    """Make the folder of a pass's results; a temporary one where none is to be kept."""
    if folder is None:
        with TemporaryDirectory(prefix="cairn-pixels-") as temporary:
            yield Path(temporary)
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    yield folder


def _int64(array: NDArray[np.int64]) -> bytes:
    return array.astype("<i8", copy=False).tobytes()


def _arrays(sealed: SealedResult, *shapes: tuple[int, ...]) -> list[NDArray[np.int64]]:
    sizes = [int(np.prod(shape)) for shape in shapes]
    if sealed.size != 8 * sum(sizes):
        raise _odd(sealed, f"{8 * sum(sizes)} bytes", f"{sealed.size}")
    flat = np.frombuffer(sealed.content(), "<i8").astype(np.int64)
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _odd(sealed: SealedResult, expected: str, got: str) -> InputDataError:
    return InputDataError(
        "not the result of a pass", field=str(sealed.path), expected=expected, got=got
    )

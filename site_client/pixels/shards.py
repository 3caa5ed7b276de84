"""A pass shared out to several machines of one hospital, and its results put together.

Every shard sees the same list of slides and takes its own by a rule that depends on the
list alone. It leaves its slides' results and a sealed word of what it saw. Merging takes
every shard once, all of the same counting and the same list; what is missing, there twice
or of something else is refused by name. The whole equals one process in every bit, because
what is added up are whole numbers. Only a merged table meets the door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Final

from common.errors import InputDataError
from site_client.pixels.checkpoints import Head, open_sealed, write_sealed
from site_client.pixels.digests import standing
from site_client.pixels.passes import (
    Found,
    SlidePart,
    SlidePass,
    content_of,
    part_name,
    read_part,
)

MOST: Final = 10_000  # shards
MERGED: Final = "merged"  # what a merged result's name ends in


@dataclass(frozen=True)
class Shard:
    """Which shard of how many.

    Attributes:
        number: 1 to ``of``.
        of: 1 to 10,000.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises:
            InputDataError: anything else.
        """
        first, slash, second = text.partition("/")
        if slash and first.isdecimal() and second.isdecimal():
            shard = cls(int(first), int(second))
            if 1 <= shard.number <= shard.of <= MOST:
                return shard
        raise InputDataError(
            "no such shard",
            field="--shard",
            expected=f"i/n, 1 <= i <= n <= {MOST}",
            got=text[:40],
            advice="Slurm and Kubernetes count as they are told: begin at 1",
        )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """Name of the file of what it saw."""
        return f"shard-{self.number}-of-{self.of}.seen"


@dataclass(frozen=True)
class Listed:
    """A slide as every shard sees it before anything is counted.

    Attributes:
        path: where it lies.
        pixels: by its header.
    """

    path: Path
    pixels: int


def dealt(slides: Sequence[Listed], shard: Shard) -> list[Listed]:
    """Pick a shard's slides: the largest first, each to the shard that has fewest pixels."""
    loads = [0] * shard.of
    mine = []
    for slide in sorted(slides, key=lambda one: (-one.pixels, one.path.name)):
        least = loads.index(min(loads))
        loads[least] += slide.pixels
        if least == shard.number - 1:
            mine.append(slide)
    return sorted(mine, key=lambda one: one.path.name)


def write_seen(
    whole: SlidePass, shard: Shard, slides: Sequence[Listed], parts: dict[str, SlidePart]
) -> Path:
    """Leave a shard's word beside its results.

    Args:
        whole: the pass.
        shard: which.
        slides: all of the site's.
        parts: results of its own, by the name of the slide.

    Raises:
        InputDataError: it cannot be written.
    """
    more: Head = {
        "of": shard.of,
        "own": [[name, part.digest, part.pixels] for name, part in sorted(parts.items())],
        "shard": shard.number,
        "slides": [[one.path.name, one.pixels, standing(one.path)] for one in slides],
    }
    place = whole.folder / shard.name
    write_sealed(place, whole.bond, more, [])
    return place


@dataclass(frozen=True)
class _Seen:
    shard: Shard
    folder: Path
    own: dict[str, str | None]
    slides: list[object]


def merge(whole: SlidePass, folders: Sequence[Path], target: Path) -> tuple[Found, int]:
    """Put the shards in ``folders`` together into the file ``target``.

    Returns:
        What all slides hold together, and how many slides they are.

    Raises:
        InputDataError: shards that are missing, there twice, of another number, of another
            plan, codec, key or list of slides; a result that is missing, damaged or not
            the one that the shard wrote.
    """
    seen = _all_seen(whole, folders)
    parts: dict[str, SlidePart] = {}
    for one in seen:
        for name, digest in one.own.items():
            if name in parts:
                raise _wrong("slides", "every slide in one shard", f"{name} in two")
            sealed = open_sealed(one.folder / part_name(Path(name)), whole.bond)
            part = read_part(sealed, whole.section, whole.codec)
            if sealed.head["slide"] != name or part.digest != digest:
                raise _wrong(f"shard {one.shard}", f"its result of {name}", "that of other bytes")
            parts[name] = part
    slides = seen[0].slides
    listed = [str(entry[0]) for entry in slides if isinstance(entry, list)]
    if lacking := sorted({*listed} ^ {*parts}):
        raise _wrong("slides", "a result of every slide", f"none, or too many, of {lacking[0]}")
    sums = reduce(add, (parts[name].found for name in listed))
    pixels, content = content_of(sums)
    more: Head = {
        "digest": None,
        "found": pixels,
        "pixels": sum(part.pixels for part in parts.values()),
        "slides": slides,
    }
    write_sealed(target, whole.bond, more, content)
    return sums, len(listed)


def _all_seen(whole: SlidePass, folders: Sequence[Path]) -> list[_Seen]:
    """Read every shard's word once, and hold them to each other."""
    seen: dict[int, _Seen] = {}
    for folder in folders:
        for path in sorted(folder.glob("shard-*-of-*.seen")):
            one = _read_seen(whole, path)
            number = one.shard.number
            if number in seen:
                other = seen[number]
                where = f"{one.shard} and {other.shard} in {folder.name} and {other.folder.name}"
                raise _wrong("shards", "every shard once", where)
            seen[number] = one
    if not seen:
        raise _wrong("shards", "at least one", "none in " + ", ".join(map(str, folders)))
    first = min(seen.values(), key=lambda one: one.shard.number)
    for one in seen.values():
        if one.shard.of != first.shard.of:
            raise _wrong("shards", f"all of {first.shard.of}", f"{one.shard}")
        if one.slides != first.slides:
            raise _wrong(
                "slides",
                f"the list of slides that shard {first.shard} saw",
                f"another in shard {one.shard}: slides came, went or were written meanwhile",
            )
    if missing := sorted({*range(1, first.shard.of + 1)} - {*seen}):
        first_few = ", ".join(f"{number}/{first.shard.of}" for number in missing[:20])
        raise _wrong("shards", f"all {first.shard.of}", f"none of {first_few}")
    return [seen[number] for number in sorted(seen)]


def _read_seen(whole: SlidePass, path: Path) -> _Seen:
    head = open_sealed(path, whole.bond).head
    digests, slides = head.get("own"), head.get("slides")
    if not isinstance(digests, list) or not isinstance(slides, list):
        raise _wrong(path.name, "what a shard saw", "something else")
    shard = Shard.parse(f"{head.get('shard')}/{head.get('of')}")
    return _Seen(shard, path.parent, {name: digest for name, digest, _ in digests}, slides)


def read_merged(whole: SlidePass, path: Path, slides: Sequence[Listed]) -> Found:
    """Read what ``merge`` wrote, for the slides that lie there now.

    Raises:
        InputDataError: damaged, of other counting, or of other slides than these.
    """
    sealed = open_sealed(path, whole.bond)
    now = [[one.path.name, one.pixels, standing(one.path)] for one in slides]
    if sealed.head.get("slides") != now:
        raise InputDataError(
            "the merged shards are of other slides",
            field=str(path),
            expected="the slides that lie in the data folder, as they are written now",
            got="others: slides came, went or were written since",
            advice="Remove this file, and count the shards again",
        )
    return read_part(sealed, whole.section, whole.codec).found


def _wrong(field: str, expected: str, got: str) -> InputDataError:
    return InputDataError(
        "shards that do not make a whole",
        field=field,
        expected=expected,
        got=got,
        advice="Count what is missing or other again, then merge",
    )

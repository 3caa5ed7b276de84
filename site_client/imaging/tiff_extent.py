"""The length that a TIFF file must have: the farthest byte that any of its pages points to.

Only the tables of pages are read. A page that was cut off takes its pixels along
without a trace in libtiff's answer, so the chain of pages is followed here.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
                 13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_NUMBERS: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_OFFSETS, _COUNTS = (273, 324), (279, 325)  # of strips, of tiles
_MOST_PAGES: Final = 100_000


def tiff_extent(file: BinaryIO, size: int) -> int:
    """Bytes that a TIFF file needs, at least.

    Args:
        file: open for reading.
        size: of the file; reading stops where it would be exceeded.
    """
    head = file.read(16)
    if len(head) < 16:
        return 17
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", head, 2)[0] == 43
    offset = struct.unpack_from(f"{order}Q", head, 8)[0] if big else _long(order, head, 4)
    reader, needed, seen = _Pages(file, size, order, big=big), 16, set[int]()
    while offset and offset not in seen and len(seen) < _MOST_PAGES and needed <= size:
        seen.add(offset)
        offset, reached = reader.page(offset)
        needed = max(needed, reached)
    return needed


def _long(order: str, data: bytes, offset: int) -> int:
    return int(struct.unpack_from(f"{order}I", data, offset)[0])


class _Pages:
    """Reads the tables of one file."""

    def __init__(self, file: BinaryIO, size: int, order: str, *, big: bool) -> None:
        self._file, self._size, self._order = file, size, order
        self._count, self._entry, self._word = (8, 20, "Q") if big else (2, 12, "I")
        self._value = 12 if big else 8

    def page(self, offset: int) -> tuple[int, int]:
        """(where the next page's table is, the farthest byte that this page needs)."""
        counter = f"{self._order}{'Q' if self._count == 8 else 'H'}"
        first = self._read(offset, self._count)
        if first is None:
            return 0, offset + self._count
        entries = min(int(struct.unpack(counter, first)[0]), 1 << 16)
        length, tail = entries * self._entry, struct.calcsize(f"{self._order}{self._word}")
        table = self._read(offset + self._count, length + tail)
        reached = offset + self._count + length + tail
        if table is None:
            return 0, reached
        tags: dict[int, tuple[int, ...]] = {}
        for k in range(entries):
            tag, values, end = self._field(table[k * self._entry : (k + 1) * self._entry])
            reached = max(reached, end)
            tags[tag] = values
        for offsets, counts in zip(_OFFSETS, _COUNTS, strict=True):
            pairs = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
            reached = max([reached, *(begin + length for begin, length in pairs if length)])
        return int(struct.unpack_from(f"{self._order}{self._word}", table, length)[0]), reached

    def _field(self, entry: bytes) -> tuple[int, tuple[int, ...], int]:
        """(tag, its numbers if they are places or lengths, where its values end)."""
        tag, kind = struct.unpack_from(f"{self._order}HH", entry)
        count = int(struct.unpack_from(f"{self._order}{self._word}", entry, 4)[0])
        total, inside = _BYTES.get(kind, 0) * count, self._entry - self._value
        data: bytes | None = entry[self._value : self._value + min(total, inside)]
        end = 0
        if total > inside:
            begin = int(struct.unpack_from(f"{self._order}{self._word}", entry, self._value)[0])
            end = begin + total
            data = self._read(begin, total) if tag in (*_OFFSETS, *_COUNTS) else None
        if data is None or tag not in (*_OFFSETS, *_COUNTS) or kind not in _NUMBERS:
            return tag, (), end
        return tag, struct.unpack(f"{self._order}{count}{_NUMBERS[kind]}", data), end

    def _read(self, offset: int, count: int) -> bytes | None:
        """These bytes, or None where the file ends before them."""
        if offset + count > self._size:
            return None
        self._file.seek(offset)
        return self._file.read(count)

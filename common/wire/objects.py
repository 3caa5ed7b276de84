"""The objects that a Flower message is taken apart into, read as the two kinds that there are.

Flower inflates whatever types, names and chunks its sender wrote down: an array that names
one chunk a million times is a million chunks in memory. Here a message holds one parcel or
one number, written as Flower writes them, or it is refused before anything is put together.
Nothing of Flower is imported: these are bytes.

Source: the object format of flwr 1.41 (``supercore/inflatable``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.arrivals.texts import json_of
from common.canonical import sha256_hex
from common.errors import RefusedError
from common.wire.carried import carried_parcel
from common.wire.codes import ReplyCode
from common.wire.parcel import MAX_PARCEL_BYTES
from common.wire.transport import CODE, PARCEL, RECORD

PIECE_BYTES: Final = 5 << 20
"""Flower cuts an array into chunks of so many bytes."""
_MAX_HEAD: Final = 256 * 1024
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class _Object:
    kind: str
    children: tuple[str, ...]
    body: memoryview


def most_objects(most: int = MAX_PARCEL_BYTES) -> int:
    """Return how many objects a message with a parcel of at most ``most`` bytes has."""
    return most // PIECE_BYTES + 8


def read_content(
    root: str, contents: Mapping[str, bytes], most: int = MAX_PARCEL_BYTES
) -> bytes | ReplyCode | None:
    """Return what a message carries: a parcel, a courier's number, or nothing.

    Args:
        root: identifier of the message's object, its SHA-256.
        contents: the objects that came, by identifier.
        most: bytes that a parcel may have.

    Raises:
        RefusedError: an object that is missing, not under its own digest, or of another form.
    """
    message = _open(root, contents, "Message")
    if not message.children:
        return None
    record_id = _only_child(_open(_sole(message), contents, "RecordDict"), RECORD)
    record = _open(record_id, contents, "ArrayRecord", "ConfigRecord")
    if record.kind == "ConfigRecord":
        return _number(record)
    array = _open(_only_child(record, PARCEL), contents, "Array")
    words = _words(array)
    if set(words) != {"arraychunk_ids", "dtype", "shape", "stype"}:
        raise _refused("Array", "its four words", "others")
    shape, data = words["shape"], _joined(array, words["arraychunk_ids"], contents, most)
    if not isinstance(shape, list):
        raise _refused("shape", "a list", "another value")
    return carried_parcel(words["dtype"], shape, words["stype"], data, most)


def _joined(array: _Object, order: object, contents: Mapping[str, bytes], most: int) -> bytes:
    """Put an array's chunks together, whose length is known before the first is copied."""
    if (
        not isinstance(order, list)
        or len(order) > most_objects(most)
        or not all(type(place) is int and 0 <= place < len(array.children) for place in order)
    ):
        raise _refused("arraychunk_ids", "places among the array's chunks", "others")
    chunks = [_open(name, contents, "ArrayChunk").body for name in array.children]
    pieces = [chunks[place] for place in order]
    total = sum(map(len, pieces))
    if total > most + PIECE_BYTES:
        raise _refused("ArrayChunk", f"at most {most} bytes", f"{total} bytes")
    return b"".join(pieces)


def _number(record: _Object) -> ReplyCode:
    """Return the number of which these are the only bytes."""
    body = bytes(record.body[:64])
    for code in ReplyCode:
        if body == number_body(code) and len(record.body) == len(body) and not record.children:
            return code
    raise _refused("ConfigRecord", "one number that a courier may say", "another record")


def number_body(code: ReplyCode) -> bytes:
    """Return a record of one number, as Flower's protocol buffers write it (zigzag varint)."""
    value, varint = 2 * int(code), bytearray()
    while value >= 0x80:
        varint.append(value & 0x7F | 0x80)
        value >>= 7
    varint.append(value)
    number = b"\x10" + bytes(varint)
    item = b"\n" + _sized(CODE.encode()) + b"\x12" + _sized(number)
    return b"\n" + _sized(item)


def _sized(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def _open(name: str, contents: Mapping[str, bytes], *kinds: str) -> _Object:
    """Take an object apart: its kind, its children's names and its body."""
    data = contents.get(name)
    if data is None or sha256_hex(data) != name:
        raise _refused(kinds[0], "an object under its own digest", "none")
    end = data.find(b"\0", 0, _MAX_HEAD)
    try:
        kind, children, size = data[: max(end, 0)].decode("ascii").split(" ")
    except ValueError as error:
        raise _refused(kinds[0], "a head of three words", "another") from error
    names = tuple(children.split(",")) if children else ()
    body = memoryview(data)[end + 1 :]
    if kind not in kinds or size != str(len(body)):
        raise _refused(kinds[0], "an object of this kind and length", "another")
    if not all(len(child) == 64 and _HEX.issuperset(child) for child in names):
        raise _refused(kind, "digests of its children", "other words")
    return _Object(kind, names, body)


def _sole(parent: _Object) -> str:
    if len(parent.children) != 1:
        raise _refused(parent.kind, "one child", f"{len(parent.children)}")
    return parent.children[0]


def _only_child(parent: _Object, name: str) -> str:
    """Return the one child of an object that names it so, and no other."""
    child = _sole(parent)
    if bytes(parent.body) != json.dumps({name: child}).encode():
        raise _refused(parent.kind, f"one entry, {name}", "others")
    return child


def _words(array: _Object) -> dict[str, object]:
    try:
        words = json_of(bytes(array.body[: 1 << 20]))
    except ValueError as error:
        raise _refused("Array", "JSON", "other bytes") from error
    if not isinstance(words, dict):
        raise _refused("Array", "its words by name", "another value")
    return words


def _refused(field: str, expected: str, got: str) -> RefusedError:
    return RefusedError(
        "a message holds neither a parcel nor a number", field=field, expected=expected, got=got
    )

"""Seeded mutations that know the grammar they bend: bytes, JSON, TOML, safetensors, PEM, parcels.

A mutation may make anything of a message; every one is drawn from the given generator and
from nothing else, so that a seed and a number are a case.
"""

from __future__ import annotations

import base64
import copy
import json
import random
import struct
from collections.abc import Callable

from common.canonical import canonical_json, sha256_hex
from common.errors import CairnError
from common.wire.envelope import METADATA_KEY
from common.wire.parcel import unwrap, wrap

Mutate = Callable[[random.Random, bytes], bytes]

WORDS = [
    *(0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63, -(2**63), 2**64, 10**400, -0.0, 1.5, 1e308),
    *(float("nan"), float("inf"), True, False, None, "", "a" * 300, "\0", "\ud800", "é"),
    *("\u202e", "../../etc/passwd", "A" * 70_000, "0" * 64, "f" * 64, "9" * 400, "-1"),
    *([], {}, [[]], {"a": 1}, [1] * 1000, ["a", "a"], "ModelUpdate", "RoundReport", "SEND"),
    *("9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00-23:59", "2026-01-01T00:00:00Z"),
]
SHAPES = [
    *([], [0], [1], [-1], [2**63], [2**32, 2**32], [0, 2**62], [1.5], ["1"], None),
    *([1] * 40, [1] * 70, [True], [2**400]),
]
DTYPES = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F4", "I16", "F16", "BF16", "U16", "I32"]
DTYPES += ["U32", "F32", "F64", "I64", "U64", "C64", "XX", "", 5, None]
OFFSETS = [[0, 0], [4, 0], [0, 2**63], [1, 5], [-1, 4], [0], None, [0.5, 4], [2**64, 2**65]]
SPLICES = [
    *(b"NaN", b"1e999", b"\xed\xa0\x80", b'"', b"\\u0000", b"\\ud800", b"-", b"00", b"\xff"),
    *(b"9" * 20, b"9" * 5000, b"[" * 500, b"[" * 2000, b'{"a":' * 990, b"\n", b"\0" * 1000),
    *(b"\x1f\x8b\x08\0", b"PK\x03\x04", b"\x93NUMPY\x01\0", b"{}", b"a.b.c=1\n", b"[[a]]\n"),
]


def raw(rng: random.Random, data: bytes) -> bytes:
    """Bits, bytes, lengths, cuts, repeats and splices."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        size = len(out)
        at = rng.randrange(size) if size else 0
        match rng.randrange(10):
            case 0 if size:
                out[at] ^= 1 << rng.randrange(8)
            case 1 if size:
                out[at] = rng.randrange(256)
            case 2:
                out[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))
            case 3:
                del out[at : at + rng.choice((1, 2, 8, 64, 1000))]
            case 4:
                del out[at:]
            case 5:
                other = rng.randrange(size) if size else 0
                out[at:at] = out[other : other + rng.choice((4, 16, 200))]
            case 6:
                out += rng.choice((b"\0", b"\n", b"\0" * 1000, b"{}", bytes(out[:50])))
            case 7:
                length = rng.choice((0, 1, 2**31, 2**32, 2**63, 2**64 - 1, size, max(0, size - 8)))
                out[at : at + 8] = struct.pack("<Q", length)
            case _:
                out[at : at + 1] = rng.choice(SPLICES)
    return bytes(out)


def _word(rng: random.Random) -> object:
    """One of the words, as its own copy: what is bent later must not bend the list."""
    return copy.deepcopy(rng.choice(WORDS))


def _nested(rng: random.Random) -> object:
    value: object = 1
    for _ in range(rng.choice((10, 70, 400, 900, rng.randrange(900, 1000)))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def bent(rng: random.Random, value: object, depth: int = 0) -> object:
    """A JSON value with one thing in it changed."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.8):
        name = rng.choice(list(value))
        chance = rng.random()
        if chance < 0.6:
            value[name] = bent(rng, value[name], depth + 1)
        elif chance < 0.75:
            del value[name]
        elif chance < 0.9:
            value[rng.choice(["v", "x", "\ud800", "", "__class__", name + " "])] = _word(rng)
        else:
            value[name + "2"] = value.pop(name)
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        chance = rng.random()
        if chance < 0.6:
            value[at] = bent(rng, value[at], depth + 1)
        elif chance < 0.75:
            del value[at]
        elif chance < 0.9:
            value.insert(at, value[at])
        else:
            value = value * rng.choice((2, 50, 300))
        return value
    if isinstance(value, str) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(["\0", "A", "-", "/", "é", '"', "\n", " "]) + value[at + 1 :]
    if type(value) in (int, float) and rng.random() < 0.5:
        try:
            return value + rng.choice((1, -1, 2**53, 0.5, -value - 1))
        except OverflowError:
            return 0
    return _nested(rng) if rng.random() < 0.06 else _word(rng)


def _written(rng: random.Random, value: object, *, canonical: bool) -> bytes:
    if canonical:
        try:
            return canonical_json(value)
        except CairnError:
            pass
    try:
        text = json.dumps(
            value,
            ensure_ascii=rng.random() < 0.5,
            separators=(",", ":"),
            sort_keys=rng.random() < 0.7,
        )
    except (RecursionError, ValueError):
        return b"{}"
    return text.encode("utf-8", "surrogatepass")


def as_json(rng: random.Random, data: bytes) -> bytes:
    """One or two values of a JSON document, mostly in its one spelling."""
    try:
        value = json.loads(data)
    except ValueError:
        return raw(rng, data)
    if rng.random() < 0.3:
        return raw(rng, data)
    for _ in range(rng.choice((1, 1, 2))):
        value = bent(rng, value)
    out = _written(rng, value, canonical=rng.random() < 0.8)
    twice = rng.random() < 0.05 and out[:1] == b"{" and len(out) > 2
    return b'{"v":1,' + out[1:] if twice else out


def as_lines(rng: random.Random, data: bytes) -> bytes:
    """Lines of JSON: one of them bent, doubled, dropped or moved."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            lines[at] = as_json(rng, lines[at])
        case 1:
            lines.insert(at, lines[at])
        case 2:
            del lines[at]
        case 3:
            rng.shuffle(lines)
        case _:
            return raw(rng, data)
    return b"\n".join(lines)


CELLS = [b"", b"nan", b"1e999", b"-inf", b"9" * 400, b"\0", b'"', b"\xff", b"x" * 200_000, b"1,1"]


def as_rows(rng: random.Random, data: bytes) -> bytes:
    """Rows and cells of a table: exchanged, doubled, dropped, emptied."""
    rows = data.split(b"\n")
    at = rng.randrange(len(rows))
    cells = rows[at].split(b",")
    place = rng.randrange(len(cells))
    match rng.randrange(6):
        case 0:
            cells[place] = rng.choice(CELLS)
        case 1:
            del cells[place]
        case 2:
            cells.insert(place, cells[place])
        case 3:
            rows.insert(at, rows[at])
            cells = rows[at].split(b",")
        case 4:
            del rows[at]
            return b"\n".join(rows)
        case _:
            return raw(rng, data)
    rows[at] = b",".join(cells)
    return b"\n".join(rows)


TOML = [
    *(b"x = 1\n", b"[x]\n", b"[[x]]\n", b"x = [" + b"[" * 2000, b"x = " + b"{a=" * 900),
    *(b"x = 0x" + b"f" * 5000 + b"\n", b"x = " + b"9" * 5000 + b"\n", b"x = nan\n"),
    *(b"x = 1e999\n", b"x = 9999-12-31T23:59:59+23:59\n", b'"\\ud800" = 1\n', b"x = -inf\n"),
    *(b'x = """', b"a." * 3000 + b"b = 1\n", b"x = 0001-01-01\n", b"# [\n"),
]


def as_toml(rng: random.Random, data: bytes) -> bytes:
    """Lines of a TOML document: values exchanged, lines doubled, tables opened."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    chance = rng.random()
    if chance < 0.4 and b"=" in lines[at]:
        name = lines[at].partition(b"=")[0]
        word = _word(rng)
        text = json.dumps(word).encode() if word is not None else b"nan"
        lines[at] = name + b"= " + text
    elif chance < 0.6:
        lines.insert(at, rng.choice(TOML))
    elif chance < 0.7:
        lines.insert(at, lines[at])
    elif chance < 0.75:
        del lines[at]
    else:
        return raw(rng, data)
    return b"\n".join(lines)


def _values(rng: random.Random, body: bytearray) -> None:
    for _ in range(rng.choice((1, 3))):
        at = rng.randrange(len(body) // 8) * 8
        body[at : at + 8] = rng.choice(
            (
                struct.pack("<d", float("nan")),
                struct.pack("<ff", float("inf"), 1e-42),
                struct.pack("<q", 2**63 - 1),
                struct.pack("<q", -(2**63)),
                struct.pack("<q", -1),
                struct.pack("<ff", 3e38, 3e38),
                rng.randbytes(8),
            )
        )


def _array(rng: random.Random, head: dict[str, dict[str, object]], name: str, size: int) -> None:
    about, chance = head[name], rng.random()
    if chance < 0.3:
        about["dtype"] = rng.choice(DTYPES)
    elif chance < 0.6:
        shape = about["shape"]
        own = [[*shape, 1], shape[::-1], shape[:-1]] if isinstance(shape, list) else []
        about["shape"] = rng.choice([*SHAPES, *own])
    elif chance < 0.8:
        about["data_offsets"] = rng.choice([*OFFSETS, [0, size], [size, size + 8]])
    elif chance < 0.9:
        head[rng.choice(["é", "", "__metadata__ ", "a" * 5000, "../x", "\0", "\ud800"])] = about
    else:
        del head[name]


def as_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Metadata, one array's declaration, values, length fields or what lies behind."""
    if rng.random() < 0.2:
        return raw(rng, data)
    size = int.from_bytes(data[:8], "little")
    try:
        head, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    except ValueError:
        return raw(rng, data)
    arrays = [name for name in head if name != "__metadata__"]
    words = head.get("__metadata__") or {}
    key, chance = next(iter(words), METADATA_KEY), rng.random()
    if chance < 0.45 and key in words:
        metadata = json.loads(words[key])
        for _ in range(rng.choice((1, 1, 2))):
            metadata = bent(rng, metadata)
        text = _written(rng, metadata, canonical=rng.random() < 0.85)
        words[key] = text.decode("utf-8", rng.choice(["replace", "surrogatepass"]))
        if rng.random() < 0.1:
            words[rng.choice(["x", "cairn ", "é"])] = rng.choice(["hidden", 5, None])
    elif chance < 0.75 and arrays:
        _array(rng, head, rng.choice(arrays), len(body))
    elif chance < 0.9 and len(body) >= 8:
        _values(rng, body)
    else:
        body += rng.randbytes(rng.choice((1, 8, 4096)))
    out = _written(rng, head, canonical=False)
    if rng.random() < 0.8:
        out += b" " * (-len(out) % 8)
    lying = rng.choice((0, len(out) + 1, 2**20 + 1, 2**63, 2**64 - 1))
    return struct.pack("<Q", len(out) if rng.random() < 0.97 else lying) + out + bytes(body)


def as_pem(rng: random.Random, data: bytes) -> bytes:
    """The DER inside, or the armour."""
    if rng.random() < 0.3:
        return raw(rng, data)
    lines = data.strip().split(b"\n")
    der = bytearray(base64.b64decode(b"".join(lines[1:-1])))
    if rng.random() < 0.5:
        der = bytearray(raw(rng, bytes(der)))
    for _ in range(rng.choice((1, 2, 4))):
        if der:
            der[rng.randrange(len(der))] = rng.randrange(256)
    text = base64.b64encode(bytes(der))
    rows = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([lines[0], *rows, lines[-1], b""])


def as_parcel(rng: random.Random, data: bytes) -> bytes:
    """Parts dropped, doubled, renamed, exchanged or bent, under a manifest that holds."""
    if rng.random() < 0.3:
        return raw(rng, data)
    parts = dict(unwrap(data))
    name = rng.choice(list(parts))
    match rng.randrange(6):
        case 0:
            parts[name] = raw(rng, parts[name])
        case 1:
            del parts[name]
        case 2:
            parts[name + "2"] = parts[name]
        case 3:
            other = rng.choice(list(parts))
            parts[name], parts[other] = parts[other], parts[name]
        case 4:
            line, _, rest = data.partition(b"\n")
            return as_json(rng, line) + b"\n" + rest
        case _:
            text = b"{" in parts[name][:1]
            parts[name] = (as_json if text else as_safetensors)(rng, parts[name])
    return wrap(parts)


def as_objects(rng: random.Random, data: bytes) -> bytes:
    """Flower's objects, one after the other as in ``decoders``: one bent, under its new digest."""
    pieces = unwrap(data)
    names = [name for name in pieces if name != "root"]
    name = rng.choice(names)
    kind, _, body = pieces[name].partition(b"\0")
    words_only = rng.random() < 0.5 and body[:1] == b"{"
    body = as_json(rng, body) if words_only else raw(rng, body)
    words = kind.split(b" ")
    if rng.random() < 0.8:
        words[-1] = str(len(body)).encode()
    if rng.random() < 0.1:
        words[rng.randrange(len(words))] = raw(rng, rng.choice(words))
    new = b" ".join(words) + b"\0" + body
    if rng.random() < 0.3:
        return wrap(pieces | {name: new})
    # The digests of all that name it are made anew, so that only the bent body is wrong.
    old_id, new_id = sha256_hex(pieces[name]), sha256_hex(new)
    return wrap(_renamed({**pieces, name: new}, old_id, new_id))


def _renamed(pieces: dict[str, bytes], old: str, new: str) -> dict[str, bytes]:
    changed = {}
    for name, data in pieces.items():
        if old.encode() in data:
            better = data.replace(old.encode(), new.encode())
            changed[name] = (sha256_hex(data), better)
    for name, (before, better) in changed.items():
        pieces = pieces | {name: better}
        if name != "root":
            pieces = _renamed(pieces, before, sha256_hex(better))
    return pieces

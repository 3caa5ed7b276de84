"""JSON and TOML from outside: bounded in size and depth, each with one meaning or none.

Python's own readers recurse once per bracket and let a name stand twice, NaN be a number
and half of a surrogate pair be a text. Here all of those are refused, and every refusal is
the one error that a reader of the format raises anyway: whoever calls catches that and
says in its own words what was wanted.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import Final, NoReturn

MOST_DEPTH: Final = 64
"""Of brackets within brackets; the deepest document of this release has seven."""
MOST_TEXT_BYTES: Final = 1 << 20
# A quote that never ends goes on to the end: looked for again from every quote within it, a
# text of escaped quotes would cost the square of its length.
_QUOTED: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_OPENING: Final = b"[{"
_BRACKETS: Final = re.compile(rb"[\[\]{}]")
_MAYBE_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""Text that is UTF-8 has halves of surrogate pairs by such escapes only."""


def is_shallow(data: bytes, most: int = MOST_DEPTH) -> bool:
    """Tell whether no reader of JSON can meet more than ``most`` open brackets at a time.

    Looks at brackets outside quotes, and never asks whether they match: text that is not
    JSON at all may be too deep, and none that is too deep passes.
    """
    if data.count(b"[") + data.count(b"{") <= most:
        return True
    depth = 0
    for bracket in _BRACKETS.finditer(_QUOTED.sub(b"", data)):
        depth += 1 if bracket[0] in _OPENING else -1
        if depth > most:
            return False
    return True


def json_of(data: bytes, most: int = MOST_TEXT_BYTES) -> object:
    """Read one JSON value in which every name stands once and every number is one.

    Args:
        data: UTF-8.
        most: bytes.

    Raises:
        ValueError: larger, deeper, or not such a value; nothing else.
    """
    if len(data) > most or not is_shallow(data):
        raise ValueError("too long or too deep")
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_each_once,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError("too deep") from error
    if _MAYBE_HALF.search(data):
        _check_texts(value)
    return value


def toml_of(data: bytes, most: int = MOST_TEXT_BYTES) -> dict[str, object]:
    """Read a TOML document.

    Args:
        data: UTF-8.
        most: bytes.

    Raises:
        TOMLDecodeError: larger, deeper, or not TOML; nothing else.
    """
    if len(data) > most:
        raise tomllib.TOMLDecodeError(f"more than {most} bytes")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except tomllib.TOMLDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise tomllib.TOMLDecodeError("text that is not UTF-8") from error
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("tables nested too deep") from error
    except (ValueError, OverflowError) as error:
        raise tomllib.TOMLDecodeError("a number or time that is none") from error


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _no_number(_: str) -> NoReturn:
    raise ValueError("not a number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number beyond all numbers")
    return value


def _check_texts(value: object) -> None:
    """Refuse half of a surrogate pair, which is no text: nothing could ever write it down again.

    Not by writing it down: what is read may take twenty times its bytes, and written as much.

    Raises:
        UnicodeEncodeError: in some text or name.
    """
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            each.encode("utf-8")
        elif isinstance(each, list):
            waiting.extend(each)
        elif isinstance(each, dict):
            waiting.extend(each)
            waiting.extend(each.values())

"""A table as bytes: one safetensors array and one metadata entry of canonical JSON.

The bytes are a function of header and counters alone, so two parties that hold
the same table hold the same bytes, and nothing can ride along in padding,
further arrays or another spelling of the header: reading compares the whole
head with the only one that this spec can have. The key is never in it.
"""

from __future__ import annotations

import json
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.arrivals.texts import json_of
from common.canonical import parse_canonical_json
from common.errors import SketchError, VerificationError
from common.sketching.spec import SketchSpec

ARRAY_NAME: Final = "table"
METADATA_NAME: Final = "count-sketch"


def head(spec: SketchSpec) -> bytes:
    """Everything that comes before the counters: length, safetensors header, padding."""
    header = {
        "__metadata__": {METADATA_NAME: spec.header().decode("utf-8")},
        ARRAY_NAME: {
            "dtype": "I64",
            "shape": [spec.rows, spec.columns],
            "data_offsets": [0, spec.table_bytes],
        },
    }
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the format asks for aligned arrays
    return len(text).to_bytes(8, "little") + text


def encode(spec: SketchSpec, table: NDArray[np.int64]) -> bytes:
    """Bytes of a table."""
    return head(spec) + table.astype("<i8", copy=False).tobytes()


def decode(data: bytes, spec: SketchSpec) -> NDArray[np.int64]:
    """Return the table in ``data``: a fresh int64[rows, columns].

    Raises:
        SketchError: other dimensions, key, domain or version than ``spec``, or
            bytes that ``encode`` would not have written.
    """
    ours = head(spec)
    if data[: len(ours)] != ours:
        _explain(data, spec)
    if len(data) != len(ours) + spec.table_bytes:
        raise SketchError(
            "not the bytes of this sketch",
            field="data",
            expected=f"{len(ours) + spec.table_bytes} bytes",
            got=f"{len(data)} bytes",
        )
    cells = np.frombuffer(data, dtype="<i8", offset=len(ours))
    return cells.reshape(spec.rows, spec.columns).astype(np.int64)


def _explain(data: bytes, spec: SketchSpec) -> None:
    """Raise for a foreign head, naming the field that differs where it can be read."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json_of(data[8 : 8 + min(length, 1 << 16)])
        text = header["__metadata__"][METADATA_NAME] if isinstance(header, dict) else ""
        theirs = parse_canonical_json(text.encode("utf-8"), METADATA_NAME)
    except (ValueError, KeyError, TypeError, AttributeError, VerificationError):
        theirs = None
    if isinstance(theirs, dict):
        for name, ours in spec.as_dict().items():
            if theirs.get(name) != ours or type(theirs.get(name)) is not type(ours):
                raise SketchError(
                    "these bytes hold another sketch",
                    field=name,
                    expected=repr(ours),
                    got="another value" if name in theirs else "nothing",
                    advice="Both sides must use the same plan and federation key",
                )
    raise SketchError(
        "not the bytes of this sketch",
        field="data",
        expected="the safetensors head that this spec writes",
        got="another head",
    )

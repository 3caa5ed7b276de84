"""The bytes of a parcel within the array of a Flower message, without numpy's reader.

Flower keeps an array as ``numpy.save`` writes one. Reading that with ``numpy.load`` would
let whoever sends it choose shape, type, archive and size; here a parcel is a head of one
spelling and the bytes behind it, or it is refused.

Source: NEP 1, format 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from common.errors import RefusedError
from common.wire.parcel import MAX_PARCEL_BYTES

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_BEFORE_HEAD: Final = len(_MAGIC) + 2
_HEAD: Final = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \(([0-9]{1,15}),\), \} *\n"
)
_MAX_HEAD: Final = 512


def carried_parcel(
    dtype: object,
    shape: Sequence[object],
    stype: object,
    data: bytes,
    most: int = MAX_PARCEL_BYTES,
) -> bytes:
    """Return the parcel that a Flower array holds.

    Args:
        dtype: as the array declares it.
        shape: as the array declares it.
        stype: as the array declares it.
        data: the array as ``numpy.save`` writes it, uint8[n].
        most: bytes that the parcel may have.

    Raises:
        RefusedError: anything but one plain row of bytes, declared as what it is.
    """
    if len(data) > most + _MAX_HEAD:
        raise _refused(f"at most {most} bytes", f"{len(data)} bytes")
    end = _BEFORE_HEAD + int.from_bytes(data[len(_MAGIC) : _BEFORE_HEAD], "little")
    head = _HEAD.fullmatch(data[_BEFORE_HEAD:end]) if end <= _MAX_HEAD else None
    if (dtype, stype) != ("uint8", "numpy.ndarray") or head is None or data[:8] != _MAGIC:
        raise _refused("uint8[n] as numpy writes it", "another array")
    size = len(data) - end
    if int(head[1]) != size or tuple(shape) != (size,) or size > most:
        raise _refused("as many bytes as it declares", f"{size} bytes")
    return data[end:]


def _refused(expected: str, got: str) -> RefusedError:
    return RefusedError("not a parcel", field="parcel", expected=expected, got=got)

"""One record as bytes: safetensors with a single metadata entry of canonical JSON.

The same bytes come out everywhere for the same record, so the SHA-256 of an
envelope names it in the ledger, in the archive and in the receipt. Decoding
builds the bytes again and compares: whatever the header does not declare
(padding, unreferenced ranges, a second metadata entry, another spelling)
makes them differ and the envelope is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from common.arrivals.texts import json_of
from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.errors import RefusedError
from common.wire.records import Record, parse_record

Array = NDArray[np.generic]
METADATA_KEY = "cairn"
ALLOWED_DTYPES = frozenset({"float32", "int32", "int64"})
MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Envelope:
    """A record with its arrays, as it was decoded or is about to be encoded."""

    record: Record
    arrays: Mapping[str, Array]


def pack(metadata: object, arrays: Mapping[str, Array]) -> bytes:
    """Safetensors bytes of ``arrays`` with ``metadata`` as canonical JSON.

    Raises:
        RefusedError: an array of a type that may not cross, or in a layout that is
            not little-endian C order.
    """
    for name, array in arrays.items():
        if array.dtype.name not in ALLOWED_DTYPES or not array.dtype.isnative:
            raise RefusedError(
                "an array of this type may not cross",
                field=name,
                expected=" or ".join(sorted(ALLOWED_DTYPES)),
                got=str(array.dtype),
            )
    text = canonical_json(metadata).decode("utf-8")
    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    return safetensors.numpy.save(contiguous, metadata={METADATA_KEY: text})


def unpack(data: bytes) -> tuple[object, dict[str, Array]]:
    """Metadata and arrays of bytes made by ``pack``; nothing else is accepted.

    Raises:
        RefusedError: not safetensors, or not exactly what ``pack`` makes of its contents.
        VerificationError: the metadata is not canonical JSON.
    """
    metadata = parse_canonical_json(_metadata(data), "envelope metadata")
    arrays = _arrays(data)
    if pack(metadata, arrays) != data:
        raise RefusedError(
            "an envelope carries more than it declares",
            expected="the bytes that its own contents encode to",
            got="other bytes",
        )
    return metadata, arrays


def _arrays(data: bytes) -> dict[str, Array]:
    try:
        return dict(safetensors.numpy.load(data))
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RefusedError(
            "not an envelope", expected="safetensors", got=type(error).__name__
        ) from error


def _metadata(data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise RefusedError("not an envelope", expected="safetensors", got=f"{len(data)} bytes")
    try:
        header = json_of(data[8 : 8 + size], MAX_HEADER_BYTES)
        text = header["__metadata__"][METADATA_KEY] if isinstance(header, dict) else None
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(
            "not an envelope", field=METADATA_KEY, expected="one metadata entry", got="none"
        ) from error
    if not isinstance(text, str):
        raise RefusedError("not an envelope", field=METADATA_KEY, expected="text", got="no text")
    return text.encode("utf-8")


def encode(envelope: Envelope) -> bytes:
    """Encode the bytes that are hashed, recorded, sent and archived."""
    return pack(envelope.record.model_dump(mode="json", exclude_none=True), envelope.arrays)


def decode(data: bytes) -> Envelope:
    """Read an envelope, refusing any byte it does not account for.

    Raises:
        RefusedError: unknown record type or field, or bytes that do not re-encode to themselves.
        VerificationError: metadata that is not canonical JSON.
    """
    metadata, arrays = unpack(data)
    envelope = Envelope(parse_record(metadata), arrays)
    if encode(envelope) != data:
        raise RefusedError(
            "an envelope is spelt in another way than its record",
            expected="the record's own encoding",
            got="other bytes",
        )
    return envelope


def decode_again(data: bytes) -> Envelope:
    """Read bytes that ``decode`` has accepted before; who calls has compared their digest.

    Raises:
        RefusedError, VerificationError: they were not.
    """
    record = parse_record(parse_canonical_json(_metadata(data), "envelope metadata"))
    return Envelope(record, _arrays(data))


@dataclass(frozen=True)
class ArrayDescription:
    """The ledger's description of an array."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


def describe_arrays(arrays: Mapping[str, Array]) -> tuple[ArrayDescription, ...]:
    """Name, type, shape and digest of every array, by name."""
    return tuple(
        ArrayDescription(
            name,
            array.dtype.name,
            tuple(array.shape),
            sha256_hex(np.ascontiguousarray(array).tobytes()),
        )
        for name, array in sorted(arrays.items())
    )

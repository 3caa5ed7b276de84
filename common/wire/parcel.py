"""Several byte strings as one: what a Flower message or a spool file holds.

First line: canonical JSON naming each part with its length and SHA-256; then
the parts, one after the other. Nothing before, between or after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.errors import RefusedError
from common.wire.records import Count, Digest

MAX_PARTS = 1024
"""An order to a site that was away brings a sum for every round that it missed."""
MAX_MANIFEST_BYTES = 1 << 18
MAX_PARCEL_BYTES = 1 << 29
"""What a worker reads of an order at all: the sums of many rounds of a large model."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]
    bytes: Count
    sha256: Digest


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    parts: Annotated[tuple[_Part, ...], Field(max_length=MAX_PARTS, strict=False)]


def wrap(parts: Mapping[str, bytes]) -> bytes:
    """One byte string of the named parts, in their order."""
    manifest = {
        "parts": [
            {"name": name, "bytes": len(data), "sha256": sha256_hex(data)}
            for name, data in parts.items()
        ]
    }
    return canonical_json(manifest) + b"\n" + b"".join(parts.values())


def wrapped_bytes(sizes: Mapping[str, int]) -> int:
    """Return how long the parcel of parts of these sizes is; none of them is needed for it."""
    digest = "0" * 64
    manifest = {
        "parts": [{"name": n, "bytes": size, "sha256": digest} for n, size in sizes.items()]
    }
    return len(canonical_json(manifest)) + 1 + sum(sizes.values())


def unwrap(data: bytes, most: int = MAX_PARCEL_BYTES) -> dict[str, bytes]:
    """Return the named parts of a parcel.

    Raises:
        RefusedError: more than ``most`` bytes, a manifest that is not valid, names twice, or
            lengths and digests that do not account for every byte.
        VerificationError: a manifest that is not canonical JSON.
    """
    return {name: bytes(part) for name, part in views(data, most).items()}


def views(data: bytes, most: int = MAX_PARCEL_BYTES) -> dict[str, memoryview]:
    """Return the named parts of a parcel without copying one; they keep the parcel alive.

    Raises:
        RefusedError, VerificationError: as ``unwrap``.
    """
    if len(data) > most:
        raise RefusedError(
            "a parcel is too large", expected=f"at most {most} bytes", got=f"{len(data)} bytes"
        )
    end = data.find(b"\n", 0, MAX_MANIFEST_BYTES)
    if end < 0:
        raise RefusedError("not a parcel", expected="a manifest line", got=f"{len(data)} bytes")
    try:
        manifest = _Manifest.model_validate(parse_canonical_json(data[:end], "parcel manifest"))
    except ValidationError as error:
        raise RefusedError("not a parcel", expected="a valid manifest", got="another") from error
    whole, position = memoryview(data), end + 1
    # Before a byte is hashed: what the manifest declares is what there is.
    declared = position + sum(part.bytes for part in manifest.parts)
    if declared != len(data):
        raise RefusedError(
            f"a parcel carries {'more' if declared < len(data) else 'less'} than it declares",
            expected=f"{declared} bytes",
            got=f"{len(data)}",
        )
    parts: dict[str, memoryview] = {}
    for part in manifest.parts:
        piece = whole[position : position + part.bytes]
        position += part.bytes
        if part.name in parts or sha256_hex(piece) != part.sha256:
            raise RefusedError(
                "a parcel was changed on its way",
                field=part.name,
                expected="the length and digest of its manifest",
                got="another",
            )
        parts[part.name] = piece
    return parts

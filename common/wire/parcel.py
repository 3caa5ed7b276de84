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


def unwrap(data: bytes) -> dict[str, bytes]:
    """Return the named parts of a parcel.

    Raises:
        RefusedError: a manifest that is not valid, names twice, or lengths and digests
            that do not account for every byte.
    """
    end = data.find(b"\n", 0, MAX_MANIFEST_BYTES)
    if end < 0:
        raise RefusedError("not a parcel", expected="a manifest line", got=f"{len(data)} bytes")
    try:
        manifest = _Manifest.model_validate(parse_canonical_json(data[:end], "parcel manifest"))
    except ValidationError as error:
        raise RefusedError("not a parcel", expected="a valid manifest", got="another") from error
    parts: dict[str, bytes] = {}
    position = end + 1
    for part in manifest.parts:
        piece = data[position : position + part.bytes]
        position += part.bytes
        if part.name in parts or len(piece) != part.bytes or sha256_hex(piece) != part.sha256:
            raise RefusedError(
                "a parcel was changed on its way",
                field=part.name,
                expected="the length and digest of its manifest",
                got="another",
            )
        parts[part.name] = piece
    if position != len(data):
        raise RefusedError(
            "a parcel carries more than it declares",
            expected=f"{position} bytes",
            got=f"{len(data)}",
        )
    return parts

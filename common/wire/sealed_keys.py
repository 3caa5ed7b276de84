"""``SealedKeys``: the federation key, sealed to other sites, as the one thing that leaves.

It belongs to no run and answers no order, so intake does not know it: it goes to
the enrolment desk. The bytes are made as every envelope's are (safetensors, one
entry of canonical JSON, nothing else), one array per receiver. An array's name
says for whom: the ledger records names, so an auditor reads there who was given
the key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.crypto.identity import SIGNATURE_BYTES
from common.crypto.sealing import BOX_BYTES, Label
from common.errors import RefusedError
from common.settings import describe_validation
from common.wire.envelope import ArrayDescription, describe_arrays, pack, unpack
from common.wire.records import FederationName, KeyId, SiteName

WORDS = (BOX_BYTES + SIGNATURE_BYTES) // 8
MOST_RECEIVERS = 256
_RECEIVER = re.compile(r"([a-z0-9][a-z0-9-]{0,31}):([0-9a-f]{64})")


class SealedKeys(BaseModel):
    """Header of what a site hands to other sites.

    Arrays: per receiver ``site:fingerprint of its ledger key``, int64[16]: the bits of
    a box (64 bytes) and of the sender's signature (64 bytes), little-endian.

    Attributes:
        federation: its name.
        site: the sender.
        generation: of the key, from 1.
        key_id: names the key without telling it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    record_type: Literal["SealedKeys"] = "SealedKeys"
    federation: FederationName
    site: SiteName
    generation: Annotated[int, Field(ge=1, lt=2**31)]
    key_id: KeyId


@dataclass(frozen=True)
class SealedBox:
    """One box on its way: what is written on it, the box, and the sender's signature."""

    label: Label
    box: bytes
    signature: bytes


@dataclass(frozen=True)
class SealedParcel:
    """A parcel of sealed keys, decoded.

    Attributes:
        header: who sends which key.
        boxes: one per receiver, in order of the receivers' names.
        arrays: what the ledger keeps of them.
    """

    header: SealedKeys
    boxes: tuple[SealedBox, ...]
    arrays: tuple[ArrayDescription, ...]


def encode_sealed(boxes: Sequence[SealedBox]) -> bytes:
    """Encode the bytes that are checked, recorded, archived and sent.

    Args:
        boxes: of one sender, federation, generation and key; at least one.

    Raises:
        RefusedError: of several, for nobody, or two for one receiver.
    """
    if not boxes:
        raise _refused("receivers", "at least one", "none")
    first = boxes[0].label
    if any(_header(box.label) != _header(first) for box in boxes):
        raise _refused("boxes", "of one sender and one key", "of several")
    arrays = {f"{b.label.for_site}:{b.label.for_ledger_key}": _words(b) for b in boxes}
    if len(arrays) != len(boxes):
        raise _refused("receivers", "each once", "one twice")
    return pack(_header(first).model_dump(mode="json"), arrays)


def decode_sealed(data: bytes) -> SealedParcel:
    """Read what ``encode_sealed`` made; no other byte is accepted.

    Raises:
        RefusedError: anything else.
        VerificationError: metadata that is not canonical JSON.
    """
    metadata, arrays = unpack(data)
    try:
        header = SealedKeys.model_validate(metadata)
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise _refused(field, expected, got) from error
    if not 1 <= len(arrays) <= MOST_RECEIVERS:
        raise _refused("receivers", f"1 to {MOST_RECEIVERS}", f"{len(arrays)}")
    boxes = tuple(_box(header, name, array) for name, array in sorted(arrays.items()))
    if encode_sealed(boxes) != data:
        raise _refused("header", "the record's own encoding", "other bytes")
    return SealedParcel(header, boxes, describe_arrays(arrays))


def _header(label: Label) -> SealedKeys:
    return SealedKeys(
        federation=label.federation,
        site=label.from_site,
        generation=label.generation,
        key_id=label.key_id,
    )


def _words(sealed: SealedBox) -> NDArray[np.int64]:
    data = sealed.box + sealed.signature
    if (len(sealed.box), len(sealed.signature)) != (BOX_BYTES, SIGNATURE_BYTES):
        raise _refused("box", f"{BOX_BYTES} and {SIGNATURE_BYTES} bytes", f"{len(data)} bytes")
    return np.frombuffer(data, dtype="<i8").astype(np.int64)


def _box(header: SealedKeys, name: str, array: object) -> SealedBox:
    match = _RECEIVER.fullmatch(name)
    if match is None:
        raise _refused("receivers", "site:fingerprint", "another name")
    if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != (WORDS,):
        raise _refused("box", f"int64[{WORDS}]", "another array")
    data = array.astype("<i8").tobytes()
    label = Label(
        federation=header.federation,
        generation=header.generation,
        key_id=header.key_id,
        from_site=header.site,
        for_site=match[1],
        for_ledger_key=match[2],
    )
    return SealedBox(label, data[:BOX_BYTES], data[BOX_BYTES:])


def _refused(field: str, expected: str, got: str) -> RefusedError:
    return RefusedError("not sealed keys", field=field, expected=expected, got=got)

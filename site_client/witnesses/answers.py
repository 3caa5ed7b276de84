"""A witness's answer on its way from courier to worker: a file in the inbox, not believed.

The courier writes down what came, under the digest of the request it came for. What it is
worth is the worker's to verify, against keys that the courier never needs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, ValidationError

from common.canonical import canonical_json, parse_canonical_json
from common.errors import VerificationError
from common.ledger.reading import read_if_there
from common.settings import Frozen
from common.wire.records import Digest
from common.witness.wire import MAX_ANSWER_BYTES
from site_client.files import write_atomically
from site_client.spool import Spool

UNREACHABLE = 0
"""In place of a status: nobody answered, or not as the protocol wants."""
_MAX_BASE64 = 4 * (MAX_ANSWER_BYTES // 3 + 1)
_MAX_FILE_BYTES = 2 * _MAX_BASE64 + 1024
_Data = Annotated[str, Field(max_length=_MAX_BASE64)]


class _Form(Frozen):
    request: Digest
    status: Annotated[int, Field(ge=0, le=999)]
    body: _Data
    held: _Data


@dataclass(frozen=True)
class Carried:
    """An answer as the courier wrote it down.

    Attributes:
        request: SHA-256 of the request that was sent.
        status: of HTTP, or ``UNREACHABLE``.
        body: of the answer; of ``UNREACHABLE`` our own words for why.
        held: the checkpoint that the witness holds against us; empty unless it refused.
    """

    request: str
    status: int
    body: bytes
    held: bytes = b""

    def put(self, spool: Spool, witness: str) -> None:
        """Write it for the worker, in place of an older one."""
        form = {
            "request": self.request,
            "status": self.status,
            "body": base64.b64encode(self.body).decode("ascii"),
            "held": base64.b64encode(self.held).decode("ascii"),
        }
        write_atomically(spool.cosigned_path(witness), canonical_json(form))


def mark_of(url: str) -> str:
    """Return the name of a witness's files: 16 hex digits of its address's digest."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def take(spool: Spool, witness: str) -> Carried | None:
    """Read an answer and remove its file; None where there is none.

    Raises:
        CairnError: the file is no answer; it is removed all the same, but for a folder.
    """
    path = spool.cosigned_path(witness)
    try:
        data = read_if_there(path, "witness's answer", _MAX_FILE_BYTES)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    if data is None:
        return None
    value = parse_canonical_json(data, "witness's answer")
    try:
        form = _Form.model_validate(value)
        body, held = (base64.b64decode(text, validate=True) for text in (form.body, form.held))
    except (ValidationError, binascii.Error, ValueError) as error:
        raise VerificationError(
            "not a witness's answer", field=path.name, expected="what the courier writes"
        ) from error
    return Carried(form.request, form.status, body, held)

"""A deliberate failure across gRPC: the same class, fields and exit code at the other end.

The status says roughly what happened to tools that know nothing of Cairn; the
JSON beside it says everything that `--json` would. No text of an unexpected
exception is sent.
"""

from __future__ import annotations

import json
from typing import Final

import grpc

from common import errors
from common.arrivals.texts import json_of
from common.errors import CairnError, InternalError, UnreachableError

METADATA_KEY = "cairn-error-bin"
_CLASSES: Final[dict[str, type[CairnError]]] = {
    name: cls
    for name, cls in vars(errors).items()
    if isinstance(cls, type) and issubclass(cls, CairnError)
}
_STATUS: Final[dict[type[CairnError], grpc.StatusCode]] = {
    errors.UsageError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RefusedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.VerificationError: grpc.StatusCode.UNAUTHENTICATED,
    errors.UnreachableError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InputDataError: grpc.StatusCode.INVALID_ARGUMENT,
}


def status_of(error: CairnError) -> grpc.StatusCode:
    """Return the nearest gRPC status. ``UNAVAILABLE`` is left to the network itself."""
    for cls in type(error).__mro__:
        if cls in _STATUS:
            return _STATUS[cls]
    return grpc.StatusCode.INTERNAL


def metadata_of(error: CairnError) -> tuple[tuple[str, bytes], ...]:
    """List what travels beside the status."""
    return ((METADATA_KEY, json.dumps(error.as_dict()).encode()),)


def error_of(failure: Exception, address: str) -> CairnError:
    """Return the failure as the other end meant it; ``failure`` is what a call raised."""
    if not isinstance(failure, grpc.Call):
        return InternalError("a call failed", field=address, got=type(failure).__name__)
    for key, value in failure.trailing_metadata() or ():
        if key == METADATA_KEY and isinstance(value, bytes):
            return rebuilt(value, address)
    code = failure.code()
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return UnreachableError(
            "the aggregator's desk does not answer",
            field=address,
            got=code.name.lower().replace("_", " "),
            advice="Is `cairn-aggregator up` running, and may this machine reach it?",
        )
    return InternalError(
        "the aggregator's desk answered with an error",
        field=address,
        got=code.name,
        advice="Are both ends of the same release? See the aggregator's log",
    )


def rebuilt(value: bytes, address: str) -> CairnError:
    """Return the error that a desk put beside its status; a word for one that says nothing."""
    try:
        fields = json_of(value)
        if not isinstance(fields, dict):
            fields = {}
        cls = _CLASSES[fields["error"]]
        words = {n: str(fields.get(n, "")) for n in ("field", "expected", "got", "advice")}
        return cls(str(fields["problem"]), **words)
    except (ValueError, KeyError, TypeError, AttributeError):
        return InternalError(
            "the aggregator's desk answered with an unreadable error", field=address
        )

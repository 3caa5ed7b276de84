"""Which number stands for which failure.

The text of an exception can hold a path, a name or a value. It goes into the
worker's own log; only the number goes on. Nothing here looks into a text except
for the allocator's one complaint, which has no type of its own.
"""

from __future__ import annotations

import errno

from common.errors import InputDataError, RefusedError, VerificationError
from common.wire.codes import ReplyCode
from site_client.egress.history import HistoryError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ALLOCATOR = "allocate memory"


class BadOrderError(Exception):
    """Wraps what was wrong with an order, as opposed to the site's own data."""


class UntrustedError(BadOrderError):
    """An order's signature or receipt does not hold: its contents prove nothing."""


class PolicyError(Exception):
    """Wraps a refusal by the site's own policy."""


class NoKeyError(Exception):
    """The plan needs the key that all sites share, and none has come to this site."""


class StoppedError(Exception):
    """The worker was asked to stop in the middle of its work; the order stays in the inbox."""


def code_of(error: BaseException) -> ReplyCode:
    """The number under which a failure leaves the site."""
    if isinstance(error, BadOrderError):
        return ReplyCode.BAD_ORDER
    if isinstance(error, PolicyError):
        return ReplyCode.REFUSED_BY_POLICY
    if isinstance(error, NoKeyError):
        return ReplyCode.NO_FEDERATION_KEY
    if isinstance(error, HistoryError):
        return error.code
    if isinstance(error, MemoryError):
        return ReplyCode.OUT_OF_MEMORY
    for cause in _chain(error):
        if isinstance(cause, MemoryError):
            return ReplyCode.OUT_OF_MEMORY
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return ReplyCode.DISK_FULL
        if isinstance(cause, RuntimeError) and _ALLOCATOR in str(cause):
            return ReplyCode.OUT_OF_MEMORY
    if isinstance(error, InputDataError):
        return ReplyCode.BAD_DATA
    if isinstance(error, RefusedError | VerificationError):
        return ReplyCode.REFUSED_AT_DOOR
    return ReplyCode.INTERNAL


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what caused it, at most ten deep."""
    chain = [error]
    while len(chain) < 10 and chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain

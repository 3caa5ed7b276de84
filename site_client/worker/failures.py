"""Numbers of failures: one for each.

The text of an exception can hold a path, a name or a value. It goes into the
worker's own log; only the number goes on. Nothing here looks into a text except
for the allocator's one complaint, which has no type of its own.
"""

from __future__ import annotations

import errno

from common.errors import InputDataError, RefusedError, VerificationError
from common.wire.codes import NumberedError, ReplyCode
from common.wire.orders import MisplacedOrderError

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


class UnknownStartError(NumberedError):
    """The plan starts from a model that this site has not computed and nobody here named."""

    code = ReplyCode.UNKNOWN_START
    problem_text = "the plan starts from a model that is not known here"


class ChangedRunError(NumberedError):
    """The run had another plan, or other sites, when this one first heard of it."""

    code = ReplyCode.CHANGED_PLAN
    problem_text = "the plan and the sites of a run cannot change"


class StoppedError(Exception):
    """The worker was asked to stop in the middle of its work; the order stays in the inbox."""


class RestoreWaitsError(StoppedError):
    """The ledger lacks records; until a person has said why, nothing is signed or answered."""


def code_of(error: BaseException) -> ReplyCode:
    """Return the number under which a failure leaves the site."""
    if isinstance(numbered := getattr(error, "code", None), ReplyCode):
        return numbered
    if isinstance(error, BadOrderError | MisplacedOrderError):
        return ReplyCode.BAD_ORDER
    if isinstance(error, PolicyError):
        return ReplyCode.REFUSED_BY_POLICY
    if isinstance(error, NoKeyError):
        return ReplyCode.NO_FEDERATION_KEY
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
    """Return an error and what caused it, at most ten deep."""
    chain = [error]
    while len(chain) < 10 and chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain

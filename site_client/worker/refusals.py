"""Reasons for no answer to an order: a number for the aggregator, the words for this site.

An exception's text can hold a path, a name or a value. Only the door's and the policy's
own words go into the ledger, for they never quote; what the images lack is noted for the
people of this site; everything else stays in the worker's log.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from common.errors import CairnError, InputDataError, RefusedError
from common.wire.codes import ReplyCode
from common.wire.orders import Order
from site_client.egress.gate import SiteExpected
from site_client.egress.release import Door, SilencedError
from site_client.site import SiteFolder
from site_client.trouble import note_trouble
from site_client.worker.failures import PolicyError, code_of
from site_client.worker.order import Opened

LOG = logging.getLogger("cairn.worker")


def refuse(
    site: SiteFolder, door: Door, opened: Opened, expected: SiteExpected, error: Exception
) -> ReplyCode:
    """Let the number of a failure out, and keep its words where they may stand.

    Args:
        site: the site's folder.
        door: the way out.
        opened: the order that failed.
        expected: names run, round and plan.
        error: what stood against it.

    Raises:
        StorageError: the ledger could not record; nothing was handed over.
    """
    refusal = error.__cause__ if isinstance(error, PolicyError) else error
    numbered = isinstance(getattr(error, "code", None), ReplyCode)
    deliberate = numbered or isinstance(error, PolicyError | RefusedError)
    code = code_of(error)
    if code is ReplyCode.BAD_DATA and isinstance(error, InputDataError):
        _note_trouble(site, opened.order, error)
    # Asked again and again while a person thinks it over, one answer serves, and one record.
    waits = code is ReplyCode.PLAN_WAITS
    try:
        door.fail(
            opened.question.while_waiting if waits else opened.question.of_parcel,
            code,
            expected,
            refusal if deliberate and isinstance(refusal, CairnError) else None,
        )
    except SilencedError as silenced:
        LOG.error("%s: %s", opened.order.name, silenced)  # noqa: TRY400
    return code


def _note_trouble(site: SiteFolder, order: Order, error: InputDataError) -> None:
    """Tell this site's people why; a full disk must not keep the number from leaving."""
    header = order.header
    about = (header.run, header.round, header.phase, order.plan.name, order.plan.kind)
    try:
        note_trouble(site, error, about, datetime.now(UTC))
    except OSError as problem:
        LOG.warning("%s: no note of it could be written: %s", order.name, problem)

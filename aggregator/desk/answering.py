"""Common to every answer of the desk: who asked, how it ended, what was told.

A deliberate failure travels with all its fields; of an unexpected one only the
type is told, because its text could quote anything. Each answer is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from aggregator.admin.credentials import check_coordinator
from aggregator.admin.folder import FederationFolder
from common.desk.failures import metadata_of, status_of
from common.errors import CairnError, InternalError, VerificationError

Count = Callable[[str, str], None]
"""Takes a method's name and how it ended: ``ok`` or the class of the error."""
_LOG = logging.getLogger(__name__)


@contextmanager
def answering(method: str, context: grpc.ServicerContext, count: Count) -> Iterator[None]:
    """Carry out a request; whatever it raises ends the call with a status."""
    try:
        yield
    except CairnError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - the outermost frame of a request
        _LOG.exception("%s failed", method)
        failure = InternalError(
            "unexpected failure at the aggregator",
            field=method,
            got=type(error).__name__,
            advice="See what `cairn-aggregator up` printed",
        )
    else:
        count(method, "ok")
        return
    count(method, type(failure).__name__)
    context.set_trailing_metadata(metadata_of(failure))
    context.abort(status_of(failure), str(failure))


def coordinator_of(folder: FederationFolder, context: grpc.ServicerContext) -> str:
    """Return the coordinator who asks.

    Raises:
        RefusedError: a site, or a credential that was withdrawn.
        VerificationError: no client certificate, or nobody's.
    """
    certificates = context.auth_context().get("x509_pem_cert", ())
    presented = [certificates] if isinstance(certificates, bytes) else list(certificates)
    if not presented:
        raise VerificationError(
            "no client certificate", field="certificate", expected="a coordinator's", got="none"
        )
    return check_coordinator(folder, presented[0])

"""Opening the site's own ledger: the one place that says whose it is and to whom it goes.

Whoever writes a record opens it here, so that federation and receiver stand in each.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from common.crypto.identity import SigningKey, read_public_key
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.ledger.parties import Parties
from site_client.site import SiteFolder


def parties_of(site: SiteFolder) -> Parties:
    """Return the federation that this site joined, and the aggregator that it was shown.

    Raises:
        InputDataError: not a site folder, or the aggregator's key is missing.
    """
    settings = site.settings()
    witness = read_public_key(site.witness_key).fingerprint
    return Parties(settings.federation, settings.address, witness)


def open_ledger(
    site: SiteFolder,
    key: SigningKey,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Ledger:
    """Open the ledger for writing; give it back with ``close``, or use it as a context manager.

    Raises:
        InputDataError: somebody else writes to it, or this is not a site folder.
        VerificationError: it does not verify.
        StorageError: the disk refused.
    """
    origin = ledger_origin(site.settings().site)
    return Ledger.open(site.ledger, origin, key, clock, parties_of(site))

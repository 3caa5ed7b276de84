"""The first seconds of a site that was admitted a moment ago.

The aggregator tells Flower of a new key half a second after the admission, or a few
seconds when the machine is busy; until then the key is refused as a stranger's would
be. A courier that was never accepted tries again for that long and says so. One that
was accepted before has been revoked: that is final at once. Decides; waits for nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from site_client.courier.fleet import UnknownKeyError

GRACE_S = 4.0
LOG = logging.getLogger("cairn.courier")


class Newcomer:
    """The doubt whether a refusal of our key may only be early.

    Args:
        accepted: exists once the aggregator has taken our key.
        clock: seconds that only go up.
    """

    def __init__(self, accepted: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._accepted = accepted
        self._clock = clock
        self._since: float | None = None

    def refused(self, error: UnknownKeyError) -> None:
        """Return if it is worth another try.

        Raises:
            UnknownKeyError: it is final.
        """
        if self._accepted.exists():
            raise error
        now = self._clock()
        if self._since is None:
            self._since = now
            LOG.warning(
                "the aggregator does not know this site's key yet; after an admission that takes "
                "a moment: trying again for %.0f s",
                GRACE_S,
            )
        if now - self._since >= GRACE_S:
            raise error

"""How long to sleep between two looks: long while news wake us, short once one did not.

Some file systems never tell of what another machine, or another container, puts there.
Nobody has to say so: a look that finds something unannounced is proof enough.
"""

from __future__ import annotations


class Lookout:
    """One place's looks.

    Args:
        short_s: between looks where nobody tells; also the first ones.
        long_s: between looks where whatever comes is told.
        told: whether anybody can tell here at all.
    """

    def __init__(self, short_s: float, long_s: float, *, notified: bool) -> None:
        self._short_s, self._long_s = short_s, long_s
        self._can_be_told = self._trusts = notified

    @property
    def seconds(self) -> float:
        """Until the next look, if nobody tells before."""
        return self._long_s if self._trusts else self._short_s

    def found(self, *, notified: bool) -> None:
        """Something was found: after we were told, or by looking."""
        self._trusts = notified and self._can_be_told

"""How often strangers may knock at the enrolment desk: the one call that nobody has signed.

A token is 256 random bits, so nothing is guessed here; what is limited is the work that a
stranger can have done: reading keys, waiting for the folder's lock, growing a log. Without
a proxy in front this is the only limit. Memory is bounded, whoever knocks from wherever:
who is forgotten first is who has been quiet longest, and all strangers together have a
limit, too. Pure: the clock is passed in.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from common.canonical import sha256_hex
from common.errors import RefusedError
from common.waking import Bucket, Rate

MOST_KEPT: Final = 4096
"""Addresses, and tokens, that are remembered at a time."""

BY_ADDRESS: Final = Rate(30, 1.0)
BY_TOKEN: Final = Rate(12, 5.0)
OF_ALL: Final = Rate(100, 0.1)


class Buckets:
    """A bucket for each of the callers that knocked last.

    Args:
        rate: of each.
        most: that are remembered.
    """

    def __init__(self, rate: Rate, most: int = MOST_KEPT) -> None:
        self._rate, self._most = rate, most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: str, now: float) -> bool:
        """Take one of a caller's calls; False if none is left."""
        bucket = self._buckets.pop(caller, None) or Bucket(self._rate, now)
        self._buckets[caller] = bucket
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return bucket.take(now)


class Knocking:
    """The limits on enrolment, together; safe in several threads.

    Args:
        clock: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._addresses, self._tokens = Buckets(BY_ADDRESS), Buckets(BY_TOKEN)
        self._all = Bucket(OF_ALL, clock())

    def require(self, address: str, token: str) -> None:
        """Return only if this call may be worked on.

        Args:
            address: of the caller; callers without one share a limit.
            token: that it shows; only its digest is remembered.

        Raises:
            RefusedError: too many came from there, with this token, or from everybody.
        """
        now = self._clock()
        with self._lock:
            # One after the other: who is over its own limit takes nothing from the others'.
            if not self._addresses.take(address, now):
                raise _too_often("address", BY_ADDRESS)
            if not self._tokens.take(sha256_hex(token.encode("utf-8", "replace")), now):
                raise _too_often("token", BY_TOKEN)
            if not self._all.take(now):
                raise _too_often("desk", OF_ALL)


def address_of(peer: str, said: Mapping[str, str]) -> str:
    """Return the address that a call came from: an IPv6 network of /64 counts as one.

    Args:
        peer: as gRPC names it, e.g. ``ipv4:203.0.113.9:51123``.
        said: metadata of the call. A proxy on this machine says there whom it speaks for;
            from anywhere else it is not believed.
    """
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "")
    address = _parsed(host) if kind in ("ipv4", "ipv6") else None
    if address is not None and address.is_loopback:
        address = _parsed(said.get("x-real-ip", "")) or address
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address or "")


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _too_often(field: str, rate: Rate) -> RefusedError:
    return RefusedError(
        "too many tries to join",
        field=field,
        expected=f"one every {rate.every_s:g} s after the first {rate.at_once}",
        got="more",
        advice="Wait a minute, then run the same command again: nothing is lost",
    )

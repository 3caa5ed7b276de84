"""The way of orders to the couriers and of replies back, without saying by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.errors import CairnError
from common.wire.codes import ReplyCode


@dataclass(frozen=True)
class Arrival:
    """Something that came back from a node: a parcel, or a courier's own number.

    Attributes:
        fault: why what came is neither; None where it is one of the two.
    """

    node: int
    parcel: bytes | None
    code: ReplyCode = ReplyCode.OK
    fault: CairnError | None = None


class Transport(Protocol):
    """A way to every site's courier."""

    def nodes(self) -> Mapping[int, str]:
        """Nodes that are online, each with the site whose node key it proved to hold."""

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        """Send one parcel to each node; earlier orders are no longer waited for.

        Args:
            parcels: by node. Each may be made when it is looked up: take one after the other,
                and keep the mapping rather than what is in it.
            deadline_s: seconds that answers are waited for.
        """

    def receive(self) -> Sequence[Arrival]:
        """Return some of what has come back for the last orders; does not wait.

        A few at a time, so that what arrives together is not held together; nothing once
        all that has come was returned.
        """

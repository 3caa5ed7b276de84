"""A carrier brings orders to a courier and takes its answers, whoever holds the connection."""

from __future__ import annotations

from typing import Literal, Protocol

from flwr.app import Message, RecordDict

from site_client.courier.fleet import Incoming

CarrierName = Literal["courier", "supernode"]
"""Who holds the connection to the aggregator: the courier itself, or Flower's own program."""


class Carrier(Protocol):
    """One connection to the aggregator."""

    def activate(self, known_node_id: int | None) -> int | None:
        """Go online and return the node's id; None where the courier has none of its own."""

    def heartbeat(self) -> bool:
        """Tell the aggregator that this site lives; False when it no longer knows us."""

    def pull(self) -> Incoming | None:
        """Return the next waiting message with its content, or None."""

    def app_digest(self, run_id: int) -> str | None:
        """SHA-256 of the app that a run names; None where it cannot be known."""

    def push(self, content: RecordDict, reply_to: Message) -> None:
        """Send the reply to a message."""

    def close(self) -> None:
        """Go offline."""

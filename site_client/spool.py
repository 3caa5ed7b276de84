"""The folder between a site's two processes: orders in, released replies out.

One file per message, named by the SHA-256 of the order it belongs to, written
by rename so that a half-written file never shows. Replies are written by
``site_client.egress.outbox`` alone; this module only reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.arrivals.files import read_bounded
from common.canonical import sha256_hex
from common.errors import RefusedError
from common.wire.parcel import MAX_PARCEL_BYTES
from site_client.files import remove_whatever, write_atomically


@dataclass(frozen=True)
class Spool:
    """Inbox and outbox below one folder."""

    root: Path

    @property
    def inbox(self) -> Path:
        """Orders that the courier brought."""
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        """Replies that the door released."""
        return self.root / "outbox"

    @property
    def key_news(self) -> Path:
        """File of what the courier last heard about the federation key."""
        return self.inbox / "federation-key.news"

    def keys_path(self, digest: str) -> Path:
        """Return the path where sealed keys appear that the door released."""
        return self.outbox / f"{digest}.keys"

    def checkpoint_path(self, witness: str) -> Path:
        """Return the path where a checkpoint lies that a witness shall cosign."""
        return self.outbox / f"{witness}.checkpoint"

    def cosigned_path(self, witness: str) -> Path:
        """Return the path of what that witness answered."""
        return self.inbox / f"{witness}.cosigned"

    def prepare(self) -> None:
        """Create both folders."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.outbox.mkdir(parents=True, exist_ok=True)

    def put_order(self, parcel: bytes) -> str:
        """Hand an order to the worker; the same order twice is the same file."""
        digest = sha256_hex(parcel)
        path = self.inbox / f"{digest}.order"
        if not path.exists():
            write_atomically(path, parcel)
        return digest

    def orders(self) -> list[str]:
        """Digests of the waiting orders, oldest first; whatever lies there under other names.

        What is gone again before it was looked at waits no more; a link leads nowhere.
        """
        files = []
        for path in self.inbox.glob("*.order"):
            try:
                files.append((path.lstat().st_mtime_ns, path.stem))
            except OSError:
                continue
        return [stem for _, stem in sorted(files)]

    def read_order(self, digest: str) -> bytes:
        """The order's bytes.

        Raises:
            FileNotFoundError: it is gone again.
            InputDataError: not a plain file, or larger than any order.
            RefusedError: the file does not hold what its name says.
        """
        path = self.inbox / f"{digest}.order"
        data = read_bounded(path, MAX_PARCEL_BYTES, "an order", follow=False)
        if sha256_hex(data) != digest:
            raise RefusedError(
                "an order was changed in the spool",
                expected="the digest that its name says",
                got="another",
            )
        return data

    def finish_order(self, digest: str) -> None:
        """Remove an order that has been answered, whatever lies in its place."""
        # A folder under an order's name would be asked after for ever.
        remove_whatever(self.inbox / f"{digest}.order")

    def reply_path(self, digest: str) -> Path:
        """Return the path where the reply to an order appears."""
        return self.outbox / f"{digest}.reply"

    def read_reply(self, digest: str) -> bytes | None:
        """The released reply, or None while there is none."""
        try:
            return self.reply_path(digest).read_bytes()
        except FileNotFoundError:
            return None

    def finish_reply(self, digest: str) -> None:
        """Remove a reply that the aggregator has."""
        self.reply_path(digest).unlink(missing_ok=True)

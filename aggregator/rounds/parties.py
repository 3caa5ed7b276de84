"""The sites of one run, as far as its rounds need them: a name, a key, a place for receipts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aggregator.admin.folder import AdmittedSite
from common.arrivals.files import read_bounded
from common.crypto.identity import PublicKey
from common.ledger.notes import MAX_NOTE_BYTES, Checkpoint, parse_note


@dataclass(frozen=True, slots=True)
class RunSite:
    """A site of a run. Small: a run holds a thousand of them, and not their requests.

    Attributes:
        key_text: of the key that signs its ledger.
        checkpoint_name: path of its newest checkpoint that was cosigned.
    """

    name: str
    key_text: str
    checkpoint_name: str

    @classmethod
    def of(cls, site: AdmittedSite) -> RunSite:
        """Keep of an admitted site what its run needs."""
        return cls(site.name, site.request.ledger_key, str(site.checkpoint_file))

    @property
    def ledger_key(self) -> PublicKey:
        """Key that signs the site's checkpoints."""
        return PublicKey.parse(self.key_text)

    @property
    def checkpoint_file(self) -> Path:
        """The newest checkpoint of the site that the aggregator has cosigned."""
        return Path(self.checkpoint_name)

    def last_seen(self) -> Checkpoint | None:
        """Return the newest checkpoint that was cosigned, or None before the first."""
        if not self.checkpoint_file.exists():
            return None
        data = read_bounded(self.checkpoint_file, MAX_NOTE_BYTES, "a site's checkpoint")
        return parse_note(data).checkpoint

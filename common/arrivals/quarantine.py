"""A place for what was refused, so that people can look at it later; never read by a process.

Bounded in number and in bytes: the oldest goes first, so that whoever sends rubbish fills
no disk. Each thing lies under its SHA-256 beside a note that says who it came from, when and
why it was refused. That putting it aside fails changes nothing: it is refused all the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from common.errors import CairnError

MOST_THINGS: Final = 64
MOST_BYTES: Final = 64 << 20
LARGEST: Final = 16 << 20
"""Of anything larger only so much of its beginning is put aside."""
LOG = logging.getLogger("cairn.arrivals")


@dataclass(frozen=True)
class Refused:
    """A note on something that was put aside.

    Attributes:
        sha256: of all that arrived.
        bytes: that arrived.
        culprit: site, key or address that it came from.
        what: it was meant to be.
        error: class of the refusal.
        why: its words.
        at: when, UTC.
    """

    sha256: str
    bytes: int
    culprit: str
    what: str
    error: str
    why: str
    at: str


@dataclass(frozen=True)
class Quarantine:
    """What was refused, below one folder.

    Attributes:
        folder: made when the first thing is put aside.
        most_things, most_bytes: that lie there at a time.
    """

    folder: Path
    most_things: int = MOST_THINGS
    most_bytes: int = MOST_BYTES

    def put(
        self, data: bytes, error: CairnError, *, culprit: str, what: str, now: datetime
    ) -> Refused:
        """Put something aside.

        Args:
            data: as it arrived.
            error: why it was refused.
            culprit: site, key or address that it came from.
            what: it was meant to be.
            now: aware.
        """
        note = Refused(
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            culprit=culprit,
            what=what,
            error=type(error).__name__,
            why=error.diagnosis,
            at=now.astimezone(UTC).isoformat(timespec="seconds"),
        )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(min(len(data), LARGEST))
            (self.folder / f"{note.sha256}.bin").write_bytes(data[:LARGEST])
            text = json.dumps(vars(note), indent=1)
            (self.folder / f"{note.sha256}.json").write_text(text, encoding="ascii")
        except OSError as problem:
            LOG.warning("what was refused could not be put aside: %s", problem)
        return note

    def notes(self) -> list[Refused]:
        """Return the notes, oldest first; one that cannot be read is left out."""
        notes = []
        for path in self.folder.glob("*.json"):
            try:
                notes.append(Refused(**json.loads(path.read_text(encoding="ascii"))))
            except (OSError, ValueError, TypeError, RecursionError):
                continue
        return sorted(notes, key=lambda note: note.at)

    def _make_room(self, size: int) -> None:
        """Remove the oldest until one more of this size fits."""
        things = sorted(self.folder.glob("*.bin"), key=lambda path: path.stat().st_mtime_ns)
        total = sum(path.stat().st_size for path in things)
        while things and (len(things) >= self.most_things or total + size > self.most_bytes):
            oldest = things.pop(0)
            total -= oldest.stat().st_size
            oldest.unlink()
            oldest.with_suffix(".json").unlink(missing_ok=True)

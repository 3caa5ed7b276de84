"""A ledger that is older than what was seen of it: nothing is signed until a person speaks.

The aggregator's order brings the newest checkpoint that both have signed. Where the ledger
lacks it, the folder was put back from a backup, or somebody cut it. Going on silently would
be a second history under the same key. So the worker keeps that checkpoint here, leaves
its orders where they are and waits. A person's word becomes a RESTORE record: what is lost,
by which checkpoint, and who says so. Then the same order is answered, in the same run.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from common.canonical import canonical_json
from common.crypto.identity import read_public_key
from common.errors import InputDataError
from common.ledger.durable import fsync_directory
from common.ledger.log import Ledger
from common.ledger.notes import MAX_NOTE_BYTES, parse_note
from common.ledger.reading import read_if_there
from common.ledger.records import LedgerRecord, Name
from common.settings import Frozen
from site_client.files import write_atomically
from site_client.site import SiteFolder

_MOST_BYTES = 4 * MAX_NOTE_BYTES


class _LostForm(Frozen):
    note: str
    run: Name
    round: int
    records: int


@dataclass(frozen=True)
class Lost:
    """What the ledger lacks.

    Attributes:
        note: the newest checkpoint of it, which site and aggregator signed.
        size: records that it covers.
        records: in the ledger when that was noticed.
        run, round: of the order that brought it.
    """

    note: bytes
    size: int
    records: int
    run: str
    round: int

    @property
    def says(self) -> str:
        """Say it in a line."""
        return (
            f"the ledger holds {self.records} records, and the aggregator has cosigned one of "
            f"{self.size} that it is not the beginning of"
        )

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        words = {"records": self.records, "lost_size": self.size}
        return {**words, "run": self.run, "round": self.round}


def note_lost(site: SiteFolder, note: bytes, run: str, round_: int, records: int) -> None:
    """Keep what proves that records are lost; from now on the ledger waits for a person."""
    words = {"note": note.decode("utf-8"), "run": run, "round": round_, "records": records}
    write_atomically(site.lost, canonical_json(words))


def read_lost(site: SiteFolder) -> Lost | None:
    """Return what the ledger lacks; None while nothing has shown that it lacks anything.

    Raises:
        InputDataError: the file is damaged.
    """
    data = read_if_there(site.lost, "note of what is lost", _MOST_BYTES)
    if data is None:
        return None
    try:
        form = _LostForm.model_validate_json(data)
    except ValidationError as error:
        raise InputDataError(
            "the note of what the ledger lacks cannot be read",
            field=str(site.lost),
            expected="what the worker wrote",
            got="something else",
            advice="Remove the file: the aggregator's next order brings it again",
        ) from error
    note = form.note.encode("utf-8")
    return Lost(note, parse_note(note).checkpoint.size, form.records, form.run, form.round)


def record_restore(site: SiteFolder, ledger: Ledger, lost: Lost, person: str) -> list[LedgerRecord]:
    """Record the gap; nothing where it stands in the ledger already.

    Raises:
        StorageError: the ledger could not record.
    """
    witness = read_public_key(site.witness_key)
    records = []
    if not ledger.has_restored(lost.note):
        entry = ledger.restore(lost.note, witness, person, (lost.run, lost.round))
        records.append(entry.record)
    # Durably: a note that came back after a power cut would have a person asked once more.
    site.lost.unlink(missing_ok=True)
    fsync_directory(site.lost.parent)
    return records

"""Every reader of what another party wrote, in a fixed order."""

from __future__ import annotations

from tests.fuzz.decoder import Decoder
from tests.fuzz.documents import of_documents
from tests.fuzz.files import of_files, of_tables
from tests.fuzz.handover import of_the_handover
from tests.fuzz.keys import of_keys, of_the_ledger
from tests.fuzz.relays import of_relays
from tests.fuzz.slides import of_slides
from tests.fuzz.wire import of_the_wire
from tests.fuzz.witnesses import of_witnesses

__all__ = ["Decoder", "all_decoders"]


def all_decoders() -> list[Decoder]:
    """Make them all; the same ones every time."""
    rooms = (of_the_wire, of_the_ledger, of_keys, of_documents, of_tables, of_files)
    rooms += (of_witnesses, of_slides, of_the_handover, of_relays)
    return [decoder for room in rooms for decoder in room()]

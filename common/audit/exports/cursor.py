"""How far a ledger was exported: nothing lost, nothing silently sent twice, no rewriting unseen.

The cursor holds the Merkle root over all records that were exported. A ledger that is no
longer a continuation of it was rewritten since, however well it verifies now: the log
server is a witness, too. A RESTORE record that names that very gap explains it.

The cursor moves only after what it stands for has arrived.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError

from common.canonical import canonical_json
from common.errors import InputDataError, UsageError
from common.ledger.durable import replace_durably
from common.ledger.merkle import leaf_hash, tree_root
from common.ledger.records import SITE_PATTERN, Count, LedgerRecord, Sha256, record_line
from common.settings import Frozen, describe_validation

_EMPTY: Final = tree_root([]).hex()


class Cursor(Frozen):
    """The state of one export.

    Attributes:
        site: whose ledger.
        site_key: fingerprint of the key that signs it.
        into: where it goes: form and server or file. Another place has another cursor.
        size: records exported so far, those that were passed over included.
        root: hex of the Merkle root over them.
        written: bytes of the file that they take; 0 for a server.
        alert: id of the last alert, so that a standing one is not sent at every look.
    """

    form: Literal["cairn-export-cursor/1"] = "cairn-export-cursor/1"
    site: Annotated[str, Field(pattern=SITE_PATTERN)]
    site_key: Sha256
    into: Annotated[str, Field(max_length=4096)]
    size: Count = 0
    root: Sha256 = _EMPTY
    written: Count = 0
    alert: Sha256 | None = None

    @classmethod
    def read(cls, path: Path, known: str | None, site: str, site_key: str, into: str) -> Self:
        """Read the state of this very export; a new one where there is no file.

        Args:
            path: of the file.
            known: the site that the ledger says it is of; None where it cannot say.
            site: that, or what stands for it.
            site_key: fingerprint of the key that signs the ledger.
            into: name of the destination.

        Raises:
            InputDataError: the file is damaged.
            UsageError: it belongs to another ledger or another place.
        """
        fresh = cls(site=site, site_key=site_key, into=into)
        try:
            stored = cls.model_validate(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return fresh
        except (OSError, ValueError, ValidationError) as error:
            got = type(error).__name__
            if isinstance(error, ValidationError):
                _, _, got = describe_validation(error)
            raise InputDataError(
                "the state of the export cannot be read",
                field=str(path),
                expected="what an earlier export wrote",
                got=got,
                advice="Without it everything is exported anew: remove it if that is wanted",
            ) from error
        for what in ("site_key", "into") if known is None else ("site", "site_key", "into"):
            if getattr(stored, what) != getattr(fresh, what):
                raise UsageError(
                    "this state belongs to another export",
                    field=f"--state, {what}",
                    expected=str(getattr(stored, what)),
                    got=str(getattr(fresh, what)),
                    advice="Give every ledger and every destination a state of its own",
                )
        return stored

    def write(self, path: Path) -> None:
        """Keep the state durably.

        Raises:
            OSError: the disk refused.
        """
        replace_durably(path, canonical_json(self.model_dump(mode="json", exclude_none=True)))

    def is_continued_by(self, records: Sequence[LedgerRecord]) -> bool:
        """Tell whether a verified ledger begins with what was exported."""
        return len(records) >= self.size and root_of(records[: self.size]) == self.root

    def after(self, records: Sequence[LedgerRecord], written: int = 0) -> Self:
        """Return the cursor once all of these have arrived."""
        return self.model_copy(
            update={
                "size": len(records),
                "root": root_of(records),
                "written": written,
                "alert": None,
            }
        )


def root_of(records: Sequence[LedgerRecord]) -> str:
    """Hex of the Merkle root over these records."""
    return tree_root([leaf_hash(record_line(record)) for record in records]).hex()

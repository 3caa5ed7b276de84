"""Putting a person's decision into the ledger.

The ledger has one writer. While a worker runs it is the worker: the decision lies in
``worker/decisions`` until its next turn. Otherwise whoever typed it writes the record
itself, by the same steps. A decision counts once it is a record, and not before.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError, model_validator

from common.arrivals.files import read_bounded
from common.crypto.identity import read_signing_key
from common.errors import InputDataError, UnreachableError
from common.ledger.log import Ledger
from common.ledger.records import LedgerRecord, Person
from common.settings import Frozen, describe_validation
from common.wire.records import Digest, SiteName
from site_client.files import remove_whatever, write_atomically
from site_client.ledger import open_ledger
from site_client.restoring import read_lost, record_restore
from site_client.site import SiteFolder

LONGEST_WAIT_S = 15.0
MOST_BYTES = 64 * 1024
_LOOK_S = 0.1


class Decision(Frozen):
    """One decision, as it waits for the ledger's writer.

    Attributes:
        event: what was decided; see ``common.ledger.records``.
        person: who decided.
        plan_fingerprint: of APPROVE and DECLINE.
        peer, peer_key: of CONFIRM; of FORGET only the name.
        lost_size: of RESTORE: records of the checkpoint that the person was shown.
    """

    event: Literal["APPROVE", "DECLINE", "CONFIRM", "FORGET", "RESTORE"]
    person: Person
    plan_fingerprint: Digest | None = None
    peer: SiteName | None = None
    peer_key: Digest | None = None
    lost_size: int | None = None

    @model_validator(mode="after")
    def _is_about_something(self) -> Self:
        if (self.event == "RESTORE") != (self.lost_size is not None):
            raise ValueError("what RESTORE is about, and nothing else")
        if self.event == "RESTORE":
            if (self.plan_fingerprint, self.peer, self.peer_key) != (None, None, None):
                raise ValueError("RESTORE is about no plan and no site")
            return self
        about_plan = self.event in ("APPROVE", "DECLINE")
        subjects = (self.plan_fingerprint, self.peer, self.peer_key)
        required = (about_plan, not about_plan, self.event == "CONFIRM")
        if tuple(value is not None for value in subjects) != required:
            raise ValueError(f"what {self.event} is about, and nothing else")
        return self

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Return a decision that waited.

        Raises:
            InputDataError: it is none.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            field, expected, got = describe_validation(error)
            raise InputDataError(
                "this is no decision", field=field, expected=expected, got=got
            ) from error

    @classmethod
    def made(cls, **words: object) -> Self:
        """Return a decision from what a person typed.

        Raises:
            InputDataError: a name or a fingerprint is not of its form.
        """
        try:
            return cls.model_validate(words)
        except ValidationError as error:
            field, expected, got = describe_validation(error)
            raise InputDataError(
                "this cannot be recorded", field=field, expected=expected, got=got
            ) from error


def record_decisions(site: SiteFolder, ledger: Ledger) -> list[LedgerRecord]:
    """Move the decisions that wait into the ledger; for whoever holds it open.

    While the ledger is known to lack records nothing but the word about that is recorded.

    Returns:
        The new records, in the order in which the decisions were made.

    Raises:
        StorageError: the ledger could not record; what waits goes on waiting.
    """
    records: list[LedgerRecord] = []
    for path in _waiting(site):
        try:
            decision = Decision.read(read_bounded(path, MOST_BYTES, "a decision", follow=False))
        except (InputDataError, FileNotFoundError):
            remove_whatever(path)  # not written by `decide`: nobody decided anything
            continue
        lost = read_lost(site)
        if decision.event == "RESTORE":
            if lost is not None and lost.size == decision.lost_size:
                records += record_restore(site, ledger, lost, decision.person)
        elif lost is None:
            fields = decision.model_dump(exclude={"event"}, exclude_none=True)
            records.append(ledger.append(decision.event, **fields).record)
        else:
            continue
        path.unlink(missing_ok=True)
    return records


def decide(
    site: SiteFolder,
    decisions: list[Decision],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Have decisions recorded; returns once they stand in the ledger.

    Raises:
        UnreachableError: a worker runs here and did not record them in time; it will.
        StorageError: the ledger could not record.
        VerificationError: the ledger does not verify.
    """
    folder = site.decisions
    folder.mkdir(mode=0o700, exist_ok=True)
    moment = time.time_ns()
    mine = [folder / f"{moment + n:020d}-{uuid.uuid4().hex}.json" for n in range(len(decisions))]
    for path, decision in zip(mine, decisions, strict=True):
        write_atomically(path, decision.model_dump_json().encode())
    _record_if_no_worker_runs(site)
    waited = 0.0
    while any(path.exists() for path in mine):
        if waited >= LONGEST_WAIT_S:
            raise UnreachableError(
                "the decision is noted and not recorded yet",
                field=str(folder),
                expected=f"the running worker to record it within {LONGEST_WAIT_S:g} s",
                got="it is busy",
                advice="It will when its round is over: see `cairn-site status`",
            )
        sleep(_LOOK_S)
        waited += _LOOK_S
        _record_if_no_worker_runs(site)


def _record_if_no_worker_runs(site: SiteFolder) -> None:
    key = read_signing_key(site.ledger_key)
    try:
        ledger = open_ledger(site, key)
    except InputDataError:
        return  # the worker that runs here holds it
    with ledger:
        record_decisions(site, ledger)


def _waiting(site: SiteFolder) -> list[Path]:
    return sorted(site.decisions.glob("*.json")) if site.decisions.is_dir() else []

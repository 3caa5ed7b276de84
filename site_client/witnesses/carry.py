"""The courier's half: take checkpoints to witnesses, bring their answers back.

A second look before anything leaves: a file of the outbox is sent only if it is, to the
byte, a request about this site's ledger, signed with the ledger's key, with as many
hashes as such a proof has. It goes to the addresses in site.toml and to no other. Every
request stands in the journal before it is sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey, read_public_key
from common.errors import CairnError, RefusedError, UnreachableError
from common.ledger.merkle import consistency_length
from common.ledger.notes import ledger_key, ledger_origin, open_note, parse_note
from common.ledger.reading import read_if_there
from common.witness.client import Connect, WitnessClient
from common.witness.policy_text import parse_text
from common.witness.wire import MAX_REQUEST_BYTES, AddCheckpoint, Answer, size_of_note
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.witnesses.answers import UNREACHABLE, Carried, mark_of

LOOK_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0
LOG = logging.getLogger("cairn.witness")


class WitnessCarrier:
    """Everything between one spool and the witnesses of site.toml.

    Args:
        site: the site's folder; only ``courier/``, ``spool/`` and site.toml are used.
        connect: makes the client; the courier's own journals every request.
        ticks: seconds that only go up.

    Raises:
        InputDataError: the policy in site.toml is not valid.
    """

    def __init__(
        self, site: SiteFolder, connect: Connect, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        settings = site.settings()
        lines = parse_text(settings.witness_policy or "")
        self._urls = {mark_of(line.url): line.url for line in lines.witnesses if line.url}
        self._origin = ledger_origin(settings.site)
        self._site = site
        self._spool = Spool(site.spool)
        authority = site.courier / "witnesses.crt"
        self._client = WitnessClient(authority if authority.exists() else None, connect=connect)
        self._ticks = ticks
        self._pause: dict[str, float] = {}
        self._next: dict[str, float] = {}

    def turn(self) -> None:
        """Carry out what waits, each witness by itself."""
        for mark, url in self._urls.items():
            if self._ticks() >= self._next.get(mark, 0.0):
                self._carry(mark, url)

    def _carry(self, mark: str, url: str) -> None:
        path = self._spool.checkpoint_path(mark)
        try:
            body = read_if_there(path, "request", MAX_REQUEST_BYTES)
            if body is None:
                return
            note = self._checked(body)
        except CairnError as error:
            LOG.error("a file in the outbox that the door did not write: %s", error)  # noqa: TRY400
            path.unlink(missing_ok=True)
            return
        try:
            answer = self._client.add_checkpoint(url, body)
            held = self._held(url, note, answer)
        except CairnError as error:
            self._postpone(mark, error)
            words = error.diagnosis.encode()[:200]
            Carried(sha256_hex(body), UNREACHABLE, words).put(self._spool, mark)
            return
        self._pause.pop(mark, None)
        Carried(sha256_hex(body), answer.status, answer.body, held).put(self._spool, mark)
        _remove(path, body)

    def _checked(self, body: bytes) -> bytes:
        """Return the note of a request, if the request is what the door makes.

        Raises:
            CairnError: it is not.
        """
        request = AddCheckpoint.from_bytes(body)
        key = ledger_key(self._origin, self._public_key())
        checkpoint = open_note(request.note, [key]).checkpoint
        exact = (
            request.to_bytes() == body
            and len(parse_note(request.note).signatures) == 1
            and request.old <= checkpoint.size
            and len(request.proof) == consistency_length(request.old, checkpoint.size)
        )
        if not exact:
            raise RefusedError(
                "not a checkpoint for a witness",
                field="outbox",
                expected="an old size, the proof from there, and our signed checkpoint",
                got="something beside them",
            )
        return request.note

    def _public_key(self) -> PublicKey:
        return read_public_key(self._site.courier_ledger_key)

    def _held(self, url: str, note: bytes, answer: Answer) -> bytes:
        """Ask a witness that will not go along for what it holds against us."""
        ahead = answer.size is not None and answer.size > size_of_note(note)
        if answer.status != 422 and not ahead:
            return b""
        try:
            latest = self._client.latest(url, self._origin)
        except CairnError:
            return b""
        return latest.body if latest.status == 200 else b""

    def _postpone(self, mark: str, error: CairnError) -> None:
        pause = self._pause.get(mark, FIRST_PAUSE_S)
        self._next[mark] = self._ticks() + pause
        self._pause[mark] = min(2 * pause, LONGEST_PAUSE_S)
        level = logging.WARNING if isinstance(error, UnreachableError) else logging.ERROR
        if pause == FIRST_PAUSE_S or level == logging.ERROR:
            LOG.log(level, "%s; next try in %.0f s", error, pause)


def keep_witnessed(site: SiteFolder, stop: Event, connect: Connect) -> None:
    """Carry until ``stop`` is set; nothing that a witness does ends a courier."""
    try:
        carrier = WitnessCarrier(site, connect)
    except CairnError as error:
        LOG.error("no witness is asked: %s", error)  # noqa: TRY400 - it says all there is
        return
    while not stop.wait(LOOK_S):
        try:
            carrier.turn()
        except (CairnError, OSError) as error:
            LOG.warning("witnesses: %s", error)
            stop.wait(FIRST_PAUSE_S)


def _remove(path: Path, body: bytes) -> None:
    """Remove a request that was carried, unless the worker has written another meanwhile."""
    with suppress(CairnError):
        if read_if_there(path, "request", MAX_REQUEST_BYTES) == body:
            path.unlink(missing_ok=True)

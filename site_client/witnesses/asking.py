"""The worker's half: ask each witness through the door, verify what it says, keep it.

An answer counts only if the cosignature holds over the very checkpoint that was asked
about. A witness that will not cosign has either not been told of this ledger, or has
seen another one: the second is an alarm, noted, logged and recorded once. Nothing here
stops anything; ``rule`` does.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from common.canonical import sha256_hex
from common.errors import CairnError, VerificationError
from common.ledger.layout import Layout
from common.ledger.log import Ledger
from common.ledger.notes import (
    MAX_NOTE_BYTES,
    NoteKey,
    ledger_key,
    open_note,
    parse_note,
    parse_signatures,
    signature_by,
    verify_signature,
)
from common.ledger.reading import read_if_there, read_regular
from common.ledger.records import RefusalDetail
from common.wire.codes import ReplyCode
from common.witness.policy import WitnessPolicy
from common.witness.wire import AddCheckpoint, Answer
from site_client.egress.checkpoints import CheckpointDoor
from site_client.files import write_atomically
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.witnesses.answers import UNREACHABLE, Carried, mark_of, take
from site_client.witnesses.standing import (
    Seen,
    Standing,
    note_standing,
    read_standing,
    seconds_since,
)

REFRESH_S = 6 * 3600.0
"""A cosignature says "as of then": this often it is asked anew, though nothing has grown."""
SETTLE_S = 1.0
"""Records come in bursts; one checkpoint after them serves."""
FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 600.0
LOST_S = 120.0
MOST_DISAGREEMENTS = 3
"""In a row; then a witness waits as one that failed does."""
LOG = logging.getLogger("cairn.witness")


class Asking:
    """One site's conversation with its witnesses, a turn at a time.

    Args:
        site: the site's folder.
        policy: whose word counts.
        ledger: of this site, open.
        clock: current time, aware.
        ticks: seconds that only go up; for patience.
    """

    def __init__(
        self,
        site: SiteFolder,
        policy: WitnessPolicy,
        ledger: Ledger,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site, self._policy, self._ledger = site, policy, ledger
        self._clock, self._ticks = clock, ticks
        self._spool = Spool(site.spool)
        self._door = CheckpointDoor(ledger, self._spool)
        self._keys: dict[str, list[NoteKey]] = {}
        self._asked: dict[str, tuple[bytes, float]] = {}
        self._next: dict[str, float] = {}
        self._wait: dict[str, float] = {}
        self._grown: tuple[int, float] = (0, 0.0)
        self._disagreed: Counter[str] = Counter()
        self._told: set[str] = set()
        self._noted: Standing | None = None
        self.standing = self._begin()
        self._note()

    def turn(self) -> None:
        """Take in the answers that came, and ask who has something new to see.

        Raises:
            StorageError: the ledger could not keep a cosignature.
        """
        now = self._ticks()
        if self._grown[0] != self._ledger.size:
            self._grown = (self._ledger.size, now)
        for mark in self._keys:
            self._hear(mark)
            if now >= self._grown[1] + SETTLE_S or mark not in self._next:
                self._ask(mark, now)
        self._note()

    def _note(self) -> None:
        if self.standing != self._noted:
            note_standing(self._site, self.standing)
            self._noted = self.standing

    def _begin(self) -> Standing:
        """Return what was noted before, for the witnesses of today's policy."""
        before = read_standing(self._site)
        names: dict[str, list[str]] = {}
        urls: dict[str, str] = {}
        for witness in self._policy.witnesses:
            if witness.url:
                mark = mark_of(witness.url)
                urls[mark] = witness.url
                names.setdefault(mark, []).append(witness.name)
                self._keys.setdefault(mark, []).append(witness.key)
        fresh = {mark: Seen(tuple(names[mark]), url) for mark, url in urls.items()}
        if before is not None:
            fresh |= {
                mark: replace(before.witnesses[mark], names=seen.names)
                for mark, seen in fresh.items()
                if mark in before.witnesses
            }
        standing = Standing(self._policy.says, 0, "", fresh)
        return self._judge_again(standing)

    def _judge_again(self, standing: Standing) -> Standing:
        """Find the newest checkpoint beside the ledger that has a quorum."""
        own = ledger_key(self._ledger.origin, self._ledger.public_key)
        for path in reversed(Layout(self._site.ledger).witnessed_files()):
            note = read_regular(path, "witnessed note", MAX_NOTE_BYTES)
            judgement = self._policy.judge(note, log_key=own)
            if judgement.witnessed and judgement.checkpoint is not None and judgement.at:
                size, at = judgement.checkpoint.size, judgement.at.isoformat()
                return replace(standing, witnessed=size, at=at)
        return replace(standing, witnessed=0, at="")

    def _ask(self, mark: str, now: float) -> None:
        """Ask one witness, if there is something that it has not seen."""
        seen = self.standing.witnesses[mark]
        pending = self._asked.get(mark)
        if pending is not None and now < pending[1] + LOST_S:
            return
        stale = seconds_since(seen.at, self._clock()) > REFRESH_S
        wanted = seen.size < self._ledger.size or stale or seen.contradicts or bool(pending)
        if not wanted or now < self._next.get(mark, 0.0):
            return
        old = seen.size if seen.size <= self._ledger.size else 0
        self._asked[mark] = (self._door.ask(mark, old), now)
        self._next[mark] = now

    def _hear(self, mark: str) -> None:
        try:
            carried = take(self._spool, mark)
        except CairnError as error:
            if str(error) not in self._told:
                self._told.add(str(error))
                LOG.error("%s", error)  # noqa: TRY400 - it says all there is
            return
        asked = self._asked.get(mark)
        if carried is None or asked is None or carried.request != sha256_hex(asked[0]):
            return  # of an earlier life, or of nothing that was asked
        seen = self.standing.witnesses[mark]
        if carried.status == UNREACHABLE:
            words = carried.body[:200].decode("utf-8", errors="replace")
            self._say(mark, replace(seen, trouble=words))
            return  # the courier goes on trying with the same request
        del self._asked[mark]
        request = AddCheckpoint.from_bytes(asked[0])
        match carried.status:
            case 200:
                self._take_in(mark, request.note, carried.body)
            case 409 | 422:
                self._disagree(mark, request, carried)
            case 404:
                self._fail(mark, "it does not know this ledger: give it `cairn-site witnesses`")
            case 403:
                self._fail(mark, "it knows this ledger under another key than ours")
            case status:
                self._fail(mark, f"it answered with HTTP {status}")

    def _take_in(self, mark: str, note: bytes, body: bytes) -> None:
        """Keep cosignatures that hold over what we asked about."""
        checkpoint = parse_note(note).checkpoint
        lines, at = b"", None
        try:
            came = parse_signatures(body.decode("utf-8"))
            for key in self._keys[mark]:
                line = signature_by(key, came)
                if line is not None:
                    at = verify_signature(line, key, checkpoint)
                    lines += line.line()
        except (VerificationError, UnicodeDecodeError):
            self._fail(mark, "its cosignature does not hold")
            return
        if at is None:
            self._fail(mark, "it cosigned with no key of the policy")
            return
        self._keep(note, checkpoint.size, lines)
        seen = self.standing.witnesses[mark]
        self._wait.pop(mark, None)
        self._disagreed.pop(mark, None)
        self._next[mark] = self._ticks()
        clean = Seen(seen.names, seen.url, checkpoint.size, at.isoformat(), trouble="")
        self._say(mark, clean)

    def _keep(self, note: bytes, size: int, lines: bytes) -> None:
        """Put new cosignatures under the note of that size, in place of older ones by the same."""
        path = Layout(self._site.ledger).witnessed_note(size)
        older = read_if_there(path, "witnessed note", MAX_NOTE_BYTES)
        fresh = parse_signatures(lines.decode("utf-8"))
        marks = {(line.name, line.key_id) for line in fresh}
        kept = [note]
        if older is not None:
            before = parse_note(older).signatures
            own = {(line.name, line.key_id) for line in parse_note(note).signatures}
            stay = [line for line in before if (line.name, line.key_id) not in marks | own]
            kept += [line.line() for line in stay]
        whole = b"".join([*kept, lines])
        own_key = ledger_key(self._ledger.origin, self._ledger.public_key)
        judgement = self._policy.judge(whole, log_key=own_key)
        settled = size if judgement.witnessed else self.standing.witnessed
        self._ledger.keep_witnessed(whole, settled)
        self.standing = self._judge_again(self.standing)

    def _disagree(self, mark: str, request: AddCheckpoint, carried: Carried) -> None:
        """Go on from where the witness stands, unless it has seen another history."""
        theirs, seen = _size_of(carried), self.standing.witnesses[mark]
        if carried.status == 409:
            if theirs is None:
                self._fail(mark, "it answered 409 without a size")
                return
            self._disagreed[mark] += 1
            if self._disagreed[mark] > MOST_DISAGREEMENTS:
                self._fail(mark, "it says another size at every question")
                return
            if theirs <= self._ledger.size and theirs != request.old:
                self._next.pop(mark, None)
                trouble = seen.trouble if seen.contradicts else ""
                self._say(mark, replace(seen, size=theirs, at="", trouble=trouble))
                return
            if theirs == request.old:
                self._fail(mark, "it contradicts itself about what it has seen")
                return
            words = f"it has seen {theirs} records, and {self._ledger.size} are here"
        else:
            words = f"it has seen other records among the first {request.old}"
        self._alarm(mark, words, carried.held)

    def _alarm(self, mark: str, words: str, held: bytes) -> None:
        """Note that a witness has seen another history, with its proof if it has one."""
        seen = self.standing.witnesses[mark]
        proven = self._contradicts_us(held)
        if proven:
            folder = self._site.witness_evidence
            folder.mkdir(mode=0o700, exist_ok=True)
            path = folder / f"{mark}-{sha256_hex(held)[:16]}.note"
            if not path.exists():
                write_atomically(path, held)
        LOG.critical("witness %s: %s", "/".join(seen.names), words)
        if not seen.contradicts or (proven and not seen.proven):
            expected = "the history of this ledger"
            error = VerificationError(
                words, field=f"witness {mark}", expected=expected, got="another"
            )
            self._ledger.append(
                "REFUSE", code=int(ReplyCode.CONTRADICTED), detail=RefusalDetail.of(error)
            )
        self._back_off(mark)
        self._say(mark, replace(seen, trouble=words, contradicts=True, proven=proven))

    def _contradicts_us(self, held: bytes) -> bool:
        """Tell whether our own key has signed something that is not in this ledger."""
        own = ledger_key(self._ledger.origin, self._ledger.public_key)
        try:
            checkpoint = open_note(held, [own]).checkpoint
        except CairnError:
            return False
        return self._ledger.root_at(checkpoint.size) != checkpoint.root

    def _fail(self, mark: str, words: str) -> None:
        self._back_off(mark)
        seen = self.standing.witnesses[mark]
        if not seen.contradicts:  # what it said before is not taken back by a failure
            self._say(mark, replace(seen, trouble=words))

    def _back_off(self, mark: str) -> None:
        wait = self._wait.get(mark, FIRST_WAIT_S)
        self._next[mark] = self._ticks() + wait
        self._wait[mark] = min(2 * wait, LONGEST_WAIT_S)

    def _say(self, mark: str, seen: Seen) -> None:
        before = self.standing.witnesses[mark]
        if seen.trouble and seen.trouble != before.trouble:
            LOG.warning("witness %s: %s", "/".join(seen.names), seen.trouble)
        self.standing = self.standing.with_seen(mark, seen)


def _size_of(carried: Carried) -> int | None:
    return Answer(carried.status, carried.body).size

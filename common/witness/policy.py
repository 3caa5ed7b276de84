"""The quorum: k of n witnesses, by a policy file, over one checkpoint.

A checkpoint is witnessed when the quorum of the policy has cosigned exactly it. Nobody
counts twice: not by two names for one key, not by two keys under one name or address in
a group that counts, and no log is its own witness. Whatever does not verify makes the
answer no. Nothing here reads a clock or a network.

Source: C2SP tlog-policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from common.errors import CairnError, InputDataError
from common.ledger.notes import (
    Algorithm,
    Checkpoint,
    NoteKey,
    parse_note,
    signature_by,
    verify_signature,
)
from common.witness.policy_text import WitnessGroup, parse_text, read_text
from common.witness.vkeys import parse_log_key, parse_witness_key

LARGEST_SKEW = timedelta(minutes=10)
"""A cosignature from further ahead than this counts for nobody who knows the time."""


@dataclass(frozen=True)
class Witness:
    """One witness of a policy.

    Attributes:
        name: in the policy.
        key: with which it cosigns.
        url: where it answers; empty when only its signatures are checked.
    """

    name: str
    key: NoteKey
    url: str


@dataclass(frozen=True)
class Cosigned:
    """One witness's valid cosignature.

    Attributes:
        name: of the witness, in the policy.
        at: when it says that it cosigned, UTC.
        algorithm: ``Ed25519`` or ``ML-DSA-44``.
    """

    name: str
    at: datetime
    algorithm: str


@dataclass(frozen=True)
class QuorumJudgement:
    """A policy's answer: is a checkpoint witnessed, and by whom?

    Attributes:
        witnessed: the quorum has cosigned it.
        checkpoint: what was judged; ``None`` when the note does not even hold.
        who: witnesses of the policy whose cosignature holds.
        missing: names of the others.
        at: since when the quorum stands behind it: no later cosignature is needed for it.
        reason: why not; empty when witnessed.
    """

    witnessed: bool
    checkpoint: Checkpoint | None
    who: tuple[Cosigned, ...]
    missing: tuple[str, ...]
    at: datetime | None
    reason: str

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "witnessed": self.witnessed,
            "size": None if self.checkpoint is None else self.checkpoint.size,
            "who": [
                {"name": c.name, "at": c.at.isoformat(), "algorithm": c.algorithm} for c in self.who
            ],
            "missing": list(self.missing),
            "at": None if self.at is None else self.at.isoformat(),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class WitnessPolicy:
    """A policy file, read and found sound.

    Attributes:
        logs: keys of the logs whose checkpoints count; empty: the caller names one.
        witnesses: in the file's order.
        groups: by name.
        quorum: name of a witness or a group.
    """

    logs: tuple[NoteKey, ...]
    witnesses: tuple[Witness, ...]
    groups: dict[str, WitnessGroup]
    quorum: str

    @property
    def says(self) -> str:
        """The quorum in words, e.g. ``2 of north, south, west``."""
        return self._words(self.quorum)

    def judge(
        self,
        checkpoint_note: bytes,
        *,
        log_key: NoteKey | None = None,
        now: datetime | None = None,
    ) -> QuorumJudgement:
        """LogJudge one checkpoint by the signatures under it.

        Args:
            checkpoint_note: the note, with as many cosignatures as there are.
            log_key: the log's key, when it is known from elsewhere; otherwise one of
                ``logs`` must have signed.
            now: aware; cosignatures from the future then do not count.
        """
        everybody = tuple(witness.name for witness in self.witnesses)
        try:
            checkpoint, who = self._cosigned(checkpoint_note, log_key, now)
        except CairnError as error:
            return QuorumJudgement(False, None, (), everybody, None, error.diagnosis)
        since = self._since(who)
        names = {cosigned.name for cosigned in who}
        missing = tuple(name for name in everybody if name not in names)
        reason = (
            "" if since else f"{len(who)} of the policy's witnesses cosigned; wanted {self.says}"
        )
        return QuorumJudgement(since is not None, checkpoint, who, missing, since, reason)

    def holds(self, names: frozenset[str]) -> bool:
        """Tell whether these witnesses together are a quorum."""
        return self._satisfied(self.quorum, names)

    def _cosigned(
        self, note: bytes, log_key: NoteKey | None, now: datetime | None
    ) -> tuple[Checkpoint, tuple[Cosigned, ...]]:
        parsed = parse_note(note, any_log=True)
        checkpoint = parsed.checkpoint
        if log_key is not None and self.logs and log_key not in self.logs:
            raise InputDataError("this ledger's key is none of the policy's logs")
        keys = self.logs if log_key is None else (log_key,)
        signed = False
        for key in keys:
            line = signature_by(key, parsed.signatures)
            if line is not None and key.name == checkpoint.origin:
                verify_signature(line, key, checkpoint)
                signed = True
        if not signed:
            raise InputDataError("no log that counts has signed this checkpoint")
        log_keys = {key.public.raw for key in keys}
        who = []
        for witness in self.witnesses:
            line = signature_by(witness.key, parsed.signatures)
            if line is None or witness.key.public.raw in log_keys:
                continue
            signed_at = verify_signature(line, witness.key, checkpoint)
            if signed_at is not None and (now is None or signed_at <= now + LARGEST_SKEW):
                who.append(Cosigned(witness.name, signed_at, algorithm_name(witness.key)))
        return checkpoint, tuple(who)

    def _since(self, who: Sequence[Cosigned]) -> datetime | None:
        """Return the newest time such that those who cosigned since then are a quorum."""
        names: set[str] = set()
        for cosigned in sorted(who, key=lambda each: each.at, reverse=True):
            names.add(cosigned.name)
            if self.holds(frozenset(names)):
                return cosigned.at
        return None

    def _satisfied(self, name: str, names: frozenset[str]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in names
        return sum(self._satisfied(member, names) for member in group.members) >= group.least

    def _words(self, name: str) -> str:
        group = self.groups.get(name)
        if group is None:
            return name
        members = ", ".join(
            f"({self._words(member)})" if member in self.groups else member
            for member in group.members
        )
        return f"{group.least} of {members}"


def algorithm_name(key: NoteKey) -> str:
    """Return how people call the algorithm of a key."""
    return "ML-DSA-44" if key.algorithm is Algorithm.POSTQUANTUM else "Ed25519"


def read_policy(path: Path) -> WitnessPolicy:
    """Read a policy file.

    Raises:
        InputDataError: it is not valid, or somebody could count twice.
    """
    return parse_policy(read_text(path))


def parse_policy(text: str) -> WitnessPolicy:
    """Read a policy.

    Raises:
        InputDataError: it is not valid, or somebody could count twice.
    """
    lines = parse_text(text)
    policy = WitnessPolicy(
        logs=tuple(parse_log_key(log.vkey) for log in lines.logs),
        witnesses=tuple(
            Witness(line.name, parse_witness_key(line.vkey), line.url) for line in lines.witnesses
        ),
        groups=lines.groups,
        quorum=lines.quorum,
    )
    _refuse_one_key_twice(policy)
    for group in policy.groups.values():
        _refuse_one_operator_twice(policy, group)
    return policy


def _refuse_one_key_twice(policy: WitnessPolicy) -> None:
    keys = [*policy.logs, *(witness.key for witness in policy.witnesses)]
    seen: set[bytes] = set()
    for key in keys:
        if key.public.raw in seen:
            raise _twice(key.name, "a key of its own", "a key that stands above, too")
        seen.add(key.public.raw)
    marks = [(key.name, key.key_id) for key in keys]
    for name, key_id in marks:
        if marks.count((name, key_id)) > 1:
            raise _twice(name, "a key id of its own", "one that stands above, too")


def _refuse_one_operator_twice(policy: WitnessPolicy, group: WitnessGroup) -> None:
    """Refuse a group that counts and could count one operator's keys as several.

    A group of ``any`` or ``all`` may hold one witness's two keys: neither counts.
    """
    if group.least in (1, len(group.members)):
        return
    seen: dict[str, str] = {}
    for member in group.members:
        for mark in set(_operators(policy, member)):
            if seen.setdefault(mark, member) != member:
                raise _twice(
                    group.name,
                    "members with different key names and addresses",
                    f"{mark} in {seen[mark]} and {member}",
                )


def _operators(policy: WitnessPolicy, name: str) -> Iterator[str]:
    """Yield what marks the operators below a member: names of keys, and addresses."""
    if (group := policy.groups.get(name)) is not None:
        for member in group.members:
            yield from _operators(policy, member)
    for witness in policy.witnesses:
        if witness.name == name:
            yield witness.key.name
            if witness.url:
                yield witness.url.rstrip("/")


def _twice(field: str, expected: str, got: str) -> InputDataError:
    return InputDataError(
        "a witness could count twice",
        field=field,
        expected=expected,
        got=got,
        advice="Put one witness's keys into a group of `any` or `all`, and count that group",
    )

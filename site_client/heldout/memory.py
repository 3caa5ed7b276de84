"""Memory of who was held out and who was trained on: ``worker/heldout.json``, keyed digests.

A file that is lost or damaged is an error: who was trained on once could be held out in a
new draw, and errors on them would pass for held out. ``cairn-site join`` makes the file.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from common.canonical import canonical_json
from common.errors import InputDataError
from common.settings import Frozen, describe_validation
from site_client.files import write_atomically

SEED_BYTES = 32
_ADVICE = (
    "Restore it from a backup: only it knows who was trained on. If it is lost for good, "
    "cairn-site held-out --begin-anew, and errors of models from before no longer count as held out"
)
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Stored(Frozen):
    """``heldout.json``."""

    v: Literal[1] = 1
    seed: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * SEED_BYTES}}}$")]
    held_out: Annotated[tuple[_Digest, ...], Field(strict=False)] = ()
    training: Annotated[tuple[_Digest, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _in_one_part(self) -> Self:
        if set(self.held_out) & set(self.training):
            raise ValueError("nobody is in both parts")
        return self


@dataclass(frozen=True)
class Memory:
    """Subjects by part, as they were last seen.

    Attributes:
        seed: secret of this site; every draw follows from it.
        held_out, training: digests of subjects and of cases. Both are kept, so that neither
            a new image of a subject nor another rule for subjects moves an image.
    """

    seed: bytes = field(repr=False)
    held_out: frozenset[str] = frozenset()
    training: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        """True before the first choice."""
        return not self.held_out and not self.training

    def number(self, subject: str) -> float:
        """Draw a subject: in [0, 1), the same in whatever order and company it comes."""
        return int(self._digest("subject", subject)[:13], 16) / 16**13

    def recall(self, subject: str, cases: Iterable[str]) -> frozenset[str]:
        """Return the parts that a subject or any of its cases was in: none, one, or both."""
        digests = self._digests(subject, cases)
        parts = {"held-out": self.held_out, "training": self.training}
        return frozenset(name for name, part in parts.items() if digests & part)

    def add(self, subject: str, cases: Iterable[str], *, held_out: bool) -> Memory:
        """Return the memory with a subject and its cases in a part."""
        digests = self._digests(subject, cases)
        if held_out:
            return Memory(self.seed, self.held_out | digests, self.training)
        return Memory(self.seed, self.held_out, self.training | digests)

    def _digests(self, subject: str, cases: Iterable[str]) -> frozenset[str]:
        named = (self._digest("case", case) for case in cases)
        return frozenset((self._digest("subject", subject), *named))

    def _digest(self, what: str, name: str) -> str:
        text = f"cairn held out v1\n{what}\n{name}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=16, key=self.seed).hexdigest()


def begin_memory(path: Path) -> None:
    """Write a memory of nobody, with a new secret seed, whatever was there."""
    write_memory(path, Memory(secrets.token_bytes(SEED_BYTES)))


def write_memory(path: Path, memory: Memory) -> None:
    """Write the memory, whole or not at all."""
    stored = _Stored(
        seed=memory.seed.hex(),
        held_out=tuple(sorted(memory.held_out)),
        training=tuple(sorted(memory.training)),
    )
    write_atomically(path, canonical_json(stored.model_dump(mode="json")))


def read_memory(path: Path) -> Memory:
    """Read the memory.

    Raises:
        InputDataError: absent or damaged; nobody is chosen anew in its place.
    """
    try:
        stored = _Stored.model_validate_json(path.read_bytes())
    except ValidationError as error:
        where, expected, got = describe_validation(error)
        raise InputDataError(
            "the memory of held-out subjects is damaged",
            field=f"{path}, {where}" if where else str(path),
            expected=expected,
            got=got,
            advice=_ADVICE,
        ) from error
    except OSError as error:
        raise InputDataError(
            "the memory of held-out subjects cannot be read",
            field=str(path),
            expected="the file that join made",
            got=type(error).__name__,
            advice=_ADVICE,
        ) from error
    return Memory(
        bytes.fromhex(stored.seed), frozenset(stored.held_out), frozenset(stored.training)
    )

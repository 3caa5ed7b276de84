"""Every deliberate failure in Cairn, and the exit code it ends a command with.

An error says which field, what was expected, what was found and what to do
now. ``got`` describes a value (its type, shape, count), and never quotes one
that could come from an image or a patient record. Exit codes are stable:
scripts at the sites rely on them.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import ClassVar, Final

_LONGEST: Final = 4000
# Controls but tabs and line ends, what reverses reading direction, halves of surrogate pairs.
_UNWRITABLE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class ExitCode(IntEnum):
    """Stable exit codes of every ``cairn-*`` command."""

    OK = 0
    USAGE = 2
    REFUSED = 3
    VERIFICATION_FAILED = 4
    UNREACHABLE = 5
    BAD_INPUT = 6
    INTERNAL = 7
    DEGRADED = 8  # only of `round start --watch --strict` and its like
    NOT_WITNESSED = 9  # only of `cairn-audit`: intact, and no witness vouches for its end
    STOPPED = 10  # only of `round start --watch` and its like: somebody stopped the run


class CairnError(Exception):
    """A deliberate failure that a person can act on.

    Args:
        problem: one clause in plain words, without a final full stop.
        field: the name of what is wrong, e.g. ``weights/fc1`` or ``task.landmarks``.
        expected: what would have been right.
        got: a description of what was found; never a value taken from data.
        advice: what the reader can do now.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(
        self, problem: str, *, field: str = "", expected: str = "", got: str = "", advice: str = ""
    ) -> None:
        self.problem = _writable(problem)
        self.field = _writable(field)
        self.expected = _writable(expected)
        self.got = _writable(got)
        self.advice = _writable(advice)
        super().__init__(self.problem)

    def __str__(self) -> str:
        """Return the one line a person sees, without the exit code."""
        text = self.problem
        if self.field:
            text += f": {self.field}"
        if self.expected:
            text += f" must be {self.expected}" if self.field else f": expected {self.expected}"
        if self.got:
            text += f", got {self.got}"
        if self.advice:
            text += f". {self.advice}"
        return text

    @property
    def diagnosis(self) -> str:
        """The same line without its advice."""
        text = str(self)
        return text.removesuffix(f". {self.advice}") if self.advice else text

    def as_dict(self) -> dict[str, str | int]:
        """Return the same for ``--json`` output."""
        return {
            "error": type(self).__name__,
            "problem": self.problem,
            "field": self.field,
            "expected": self.expected,
            "got": self.got,
            "advice": self.advice,
            "exit_code": int(self.exit_code),
        }


def _writable(text: str) -> str:
    """Return a word that any journal, screen or record can take, whoever chose it.

    A field's name may come from outside: half a surrogate pair in one would otherwise end
    whoever writes the refusal down.
    """
    if len(text) <= _LONGEST and text.isprintable():
        return text
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", cut)


class UsageError(CairnError):
    """The command line asks for something that makes no sense."""

    exit_code = ExitCode.USAGE


class RefusedError(CairnError):
    """Something a policy forbids: at the door, by a plan, or at intake."""

    exit_code = ExitCode.REFUSED


class VerificationError(CairnError):
    """A signature, digest, proof, certificate or ledger does not hold."""

    exit_code = ExitCode.VERIFICATION_FAILED


class UnreachableError(CairnError):
    """The peer cannot be reached now; the only failure worth a retry."""

    exit_code = ExitCode.UNREACHABLE


class InputDataError(CairnError):
    """An image, landmark file, plan or configuration cannot be used as it is."""

    exit_code = ExitCode.BAD_INPUT


class SketchError(InputDataError):
    """A sketch does not fit: wrong dimensions, key, type or length."""


class InternalError(CairnError):
    """A broken invariant of our own; please report it."""

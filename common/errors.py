"""Every deliberate failure in Cairn, and the exit code it ends a command with.

An error says which field, what was expected, what was found and what to do
now. ``got`` describes a value (its type, shape, count), and never quotes one
that could come from an image or a patient record. Exit codes are stable:
scripts at the sites rely on them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


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
        super().__init__(problem)
        self.problem = problem
        self.field = field
        self.expected = expected
        self.got = got
        self.advice = advice

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

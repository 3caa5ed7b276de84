"""The complaint about settings that are each right and do not fit each other."""

from __future__ import annotations


class MisfitError(ValueError):
    """Settings that do not fit each other.

    A ``ValueError``, so that validation collects it like any other complaint.

    Args:
        field: dotted name of the setting to change.
        expected: what would fit.
        got: what it is, never a value from data.
    """

    def __init__(self, field: str, expected: str, got: str = "another value") -> None:
        super().__init__(expected)
        self.field = field
        self.got = got

"""The subject of a case, by its name alone. No file is looked at here.

A split never tears a subject apart: every room that keeps cases out of training asks here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from common.errors import InputDataError

BIDS = r"^(sub-[^_]+)_"
"""The subject in the name of a BIDS file."""


class SubjectKey:
    """Says whose image a case is.

    Args:
        pattern: regular expression whose first group, or whole match, in a case's name says
            the subject; empty for BIDS's ``sub-…`` or else the whole name.
        field: the setting that the pattern stands in, for errors.

    Raises:
        InputDataError: not a regular expression.
    """

    def __init__(self, pattern: str, field: str = "data.subject") -> None:
        try:
            self._pattern = re.compile(pattern or BIDS)
        except re.error as error:
            raise InputDataError(
                "not a regular expression", field=field, got=type(error).__name__
            ) from error
        self._wanted = bool(pattern)

    def __call__(self, name: str) -> str:
        """Return the subject of a case.

        Raises:
            InputDataError: a pattern was given, and the name does not match it.
        """
        match = self._pattern.search(name)
        if match is None:
            if self._wanted:
                raise InputDataError(
                    "a name does not say its subject",
                    field=name,
                    expected=f"a match of {self._pattern.pattern}",
                )
            return name
        return match[1] if match.re.groups else match[0]

    def group(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return the cases of every subject, in the order of ``names``.

        Raises:
            InputDataError: a name does not say its subject.
        """
        cases: dict[str, list[str]] = {}
        for name in names:
            cases.setdefault(self(name), []).append(name)
        return cases

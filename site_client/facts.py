"""One line of ``cairn-site check``: what was looked at, what was found, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.errors import ExitCode

Level = Literal["ok", "warning", "bad"]


@dataclass(frozen=True)
class Fact:
    """One line.

    Attributes:
        name: what was looked at.
        level: ``bad`` ends the command with ``exit_code``.
        says: what was found.
        fix: what to do now; empty when nothing needs to be done.
    """

    name: str
    level: Level
    says: str
    fix: str = ""
    exit_code: ExitCode = ExitCode.OK

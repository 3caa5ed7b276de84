"""The field that tags are numbers of: the integers mod 2**61 - 1."""

from __future__ import annotations

from typing import Final

PRIME: Final = 2**61 - 1

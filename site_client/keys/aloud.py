"""Fingerprints as two people read them to each other: groups of four, at least four of them.

Sixteen digits are 64 bits: nobody makes a second key with the same beginning by
the way. Compares text only; what is confirmed by it is for a person to say.
"""

from __future__ import annotations

import re

from common.errors import UsageError

LEAST_DIGITS = 16
WHOLE = 64
_GROUP = 4
_APART = re.compile(r"[\s:\-]+")


def groups(fingerprint: str) -> str:
    """``4f3a 91c2 …``: all of it, in groups."""
    return " ".join(
        fingerprint[start : start + _GROUP] for start in range(0, len(fingerprint), _GROUP)
    )


def first_groups(fingerprint: str) -> str:
    """Return what has to be read aloud at least: the first 64 bits, in groups."""
    return groups(fingerprint[:LEAST_DIGITS])


def read_typed(text: str) -> str:
    """Return the digits that a person typed, however they set them apart.

    Raises:
        UsageError: not hexadecimal, or fewer than 16 or more than 64 digits.
    """
    digits = _APART.sub("", text).lower()
    if re.fullmatch(f"[0-9a-f]{{{LEAST_DIGITS},{WHOLE}}}", digits):
        return digits
    odd = len(re.sub("[0-9a-f]", "", digits))
    raise UsageError(
        "this is no fingerprint",
        field="fingerprint",
        expected=f"{LEAST_DIGITS} to {WHOLE} hexadecimal digits, as the other site's staff "
        "read them aloud",
        got=f"{odd} other characters" if odd else f"{len(digits)} digits",
        advice="Theirs stands in the first lines of `cairn-site peers`, there",
    )


def agrees(digits: str, fingerprint: str) -> bool:
    """Tell whether what was typed is how the fingerprint begins."""
    return len(digits) >= LEAST_DIGITS and fingerprint.startswith(digits)

"""A plan in words, for whoever has to decide about it: coordinator, hospital, auditor.

``plan`` says what a site is asked, what leaves and who learns what, ``facts`` the same
in a few lines; ``leaving`` how much at most; ``bounds`` holds a plan against the numbers
of a ``policy.toml``. What plans of one kind alone need, each has in a room of its own.
All three parties read the same sentences. Nothing here decides, opens a file or knows a
role: what really refuses a plan is the site's own policy.
"""

from __future__ import annotations

from common.words.bounds import USUAL, Bounded, held_against
from common.words.facts import about_kind, facts_of
from common.words.leaving import Leaving, leavings
from common.words.plan import Passage, all_words, in_words

__all__ = [
    "USUAL",
    "Bounded",
    "Leaving",
    "Passage",
    "about_kind",
    "all_words",
    "facts_of",
    "held_against",
    "in_words",
    "leavings",
]

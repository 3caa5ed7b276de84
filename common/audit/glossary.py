"""The words of an audit's page, for readers who have never seen Cairn.

Each is a line of deploy/GLOSSARY.md, word for word; a test compares them.
"""

from __future__ import annotations

from html import escape
from typing import Final

WORDS: Final[dict[str, str]] = {
    "aggregator": "the machine that sends orders, adds what sites send, and has neither images "
    "nor torch",
    "approval": "a person's yes at a site to one plan, by its fingerprint; a ledger record",
    "archive": "the ledger's folder of the bytes that its records name by digest",
    "checkpoint": "size and root of a ledger's tree, signed by the site",
    "digest": "SHA-256 of bytes, in hex",
    "door": "`site_client/egress`: the only code that lets bytes leave a site",
    "envelope": "one record and its arrays as safetensors bytes",
    "federation key": "the secret that all sites share and the aggregator never sees",
    "fingerprint": "the digest that names a plan or a public key, and that people read aloud",
    "ledger": "a site's signed append-only log of what left, was refused and was decided",
    "order": "the aggregator's signed words to a site for one round",
    "plan": "what a run does, as frozen data known by its fingerprint",
    "policy": "a site's own bounds on every plan, in `policy.toml`",
    "receipt": "a checkpoint that the aggregator has cosigned",
    "release": "the passing of bytes through the door; also what passed",
    "round": "one order to every site and their answers; a run is a list of them",
    "run": "one execution of a plan by a federation",
    "witness": "who cosigns checkpoints: the aggregator, and third parties whom a site names",
}
VERDICTS: Final[dict[str, str]] = {
    "intact and witnessed": "nothing was altered, and somebody outside vouches for all of it",
    "not witnessed": "nothing contradicts it, but its end may have been cut off unseen",
    "broken": "something that was signed, or that a rule asks for, does not hold",
}


def glossary_html() -> str:
    """Return verdicts and words as a definition list."""
    words = {**VERDICTS, **WORDS}
    return "".join(
        f"<dt>{escape(word)}</dt><dd>{escape(meaning.replace('`', ''))}</dd>"
        for word, meaning in words.items()
    )

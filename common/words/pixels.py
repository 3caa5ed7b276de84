"""The words of plans that count the pixels of slides."""

from __future__ import annotations

from typing import Final

from common.cli import counted
from common.plan import FederationPlan
from common.schedule import schedule
from common.words.kind import Facts, KindWords, Sentences, few, hidden, tier

_DIGITS: Final = {"reduced": "components", "all-bands": "bands"}
_RADIX: Final = {"reduced": "bins", "all-bands": "levels"}
_TOLD: Final = frozenset(
    {
        *("pixels.bands", "pixels.codec", "pixels.components", "pixels.bins", "pixels.levels"),
        *("pixels.rows", "pixels.columns", "pixels.top", "pixels.key_pixels", "pixels.key_sites"),
        *("pixels.min_slides", "pixels.min_pixels", "limits.privacy_tier"),
        "pixels.smoothing",
        *("limits.min_sketch_fill", "pixels.presence_floor"),
    }
)
_PHASES: Final = {
    "survey": "survey (how bright pixels are and how bands go together)",
    "range": "range (how far each component reaches)",
    "sketch": "sketch (counts of the quantised pixels)",
    "recover": "recover (each site reads the frequent ones out of all sites' sum)",
}


def _facts(plan: FederationPlan) -> Facts:
    section = plan.pixels
    count, radix = section.digits
    return [
        ("bands", few(section.bands)),
        ("codec", f"{count} {_DIGITS[section.codec]} of {radix} {_RADIX[section.codec]}"),
        ("rounds", ", ".join(schedule(plan)[1:])),
        (
            "sketches",
            f"{len(section.tables)} of {section.rows} x {section.columns} cells, {tier(plan)}",
        ),
        ("named", f"keys of {section.key_pixels} pixels or more at {section.key_sites} sites"),
    ]


def _work(plan: FederationPlan) -> Sentences:
    section = plan.pixels
    count, radix = section.digits
    return (
        f"Count the pixels of the site's slides of {counted(len(section.bands), 'band')} "
        f"({few(section.bands)}). A pixel becomes a key: {count} {_DIGITS[section.codec]} of "
        f"{radix} {_RADIX[section.codec]} each.",
        *_smoothing(section.smoothing),
        "Rounds of work: " + "; ".join(_PHASES[phase] for phase in schedule(plan)[1:]) + ".",
        f"Named outside the site are only keys of {section.key_pixels} pixels or more in the whole "
        f"federation that are present at {section.key_sites} sites or more, at most "
        f"{section.top:,}; a key is present at a site with "
        f"{counted(section.presence_floor, 'pixel')}.",
    )


def _smoothing(pixels: float) -> Sentences:
    """Say how bands are smoothed first, where they are."""
    if not pixels:
        return ()
    return (
        "Before anything else every band is smoothed by a Gaussian of a standard deviation of "
        f"{pixels:g} pixels, so that a key also tells of a pixel's neighbours.",
    )


def _floors(plan: FederationPlan) -> Sentences:
    pixels = plan.pixels
    return (
        f"{counted(pixels.min_slides, 'slide')} and {pixels.min_pixels:,} pixels at least; "
        f"{100 * plan.limits.min_sketch_fill:g} % of a sketch's cells in use.",
    )


def _seen(plan: FederationPlan) -> Sentences:
    return (
        "It sees each site's sums over all its pixels by themselves: brightness, products of "
        "bands, reach of components; and the keys that the sites name, with their counts.",
        hidden(plan),
    )


_LEARNT: Final[Sentences] = (
    "Every site gets the sum of all sites' sketches, in which it can look up any key that "
    "it thinks of, but not whose pixels they were; and the codec, which is fitted to all "
    "sites' sums. One site's own sketches are not sent to another; where two take part, "
    "each can subtract its own.",
)


WORDS: Final = KindWords(
    fields=_TOLD, facts=_facts, work=_work, floors=_floors, seen=_seen, learnt=lambda _: _LEARNT
)

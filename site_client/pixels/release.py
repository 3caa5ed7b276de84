"""Keys of the merged tables that may be named: recovery at a site, then the gate.

Pure functions: nothing here opens, sends or logs. A key passes only when it is
frequent, clear of the sketch's own error and present at several sites; keys that
do not pass are never listed, counted or described.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusedError
from common.sketching import CountSketch
from common.sketching.heavy_hitters import RankedKeys
from common.sketching.peeling import estimate_error, peel, row_error
from site_client.pixels.counting import PixelTables

TOP: Final = 20_000
MARGIN: Final = 2.0
_PRESENCE_ERROR: Final = 0.25  # sites: a key of one site then looks like two once in 40 times

U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class ReleaseRule:
    """The conditions for naming a key outside the sites.

    Attributes:
        pixels: fewest pixels in the whole federation.
        sites: fewest sites at which it is present.
        sigmas: how many standard errors of one row of the sketch its estimate must reach.
        margin: by how many standard errors an estimate must exceed ``pixels - 1``, the most
            that a key short of the rule can have. An estimate errs both ways: without a
            margin, of the keys a few pixels short those are named whose estimate is too
            high. Where estimates err by less than half a pixel it changes nothing.

    Raises:
        RefusedError: a rule that would protect nothing.

    The margin is part of the rule and not of a plan, because all sites must name the
    same keys. What it takes and what it costs: ``deploy/results/PIXELS.md``.
    """

    pixels: int = 50
    sites: int = 2
    sigmas: float = 5.0
    margin: float = MARGIN

    def __post_init__(self) -> None:
        for name, value, least in (
            ("pixels", self.pixels, 2),
            ("sites", self.sites, 1),
            ("sigmas", self.sigmas, 3.0),
            ("margin", self.margin, 0.0),
        ):
            if not value >= least:
                raise RefusedError(
                    "a release rule that protects nothing",
                    field=name,
                    expected=f"at least {least}",
                    got="less",
                )


@dataclass(frozen=True, eq=False)
class NamedKeys:
    """Keys that may be named, most frequent first.

    Attributes:
        keys: uint64[n].
        counts: float64[n], estimated pixels in the federation.
        threshold: estimate that a key had to reach.
        sigma: standard error of one row of the full sketch.
    """

    keys: U64
    counts: F64
    threshold: float
    sigma: float


def release(tables: PixelTables, rule: ReleaseRule, top: int = TOP) -> NamedKeys:
    """Recover the ``top`` keys of the merged tables and let pass of them what the rule allows.

    Args:
        tables: of all sites together, with the federation key.
        rule: of the plan, within the site's policy.
        top: how many of the most frequent keys are looked at; no more are named.

    Raises:
        SketchError: no federation key, or a search that would take too long.
        RefusedError: the presence sketch is too full to tell one site from two.
    """
    peeled = tables.views.search(top, floor=rule.pixels)
    keys, counts = peeled.found.keys[:top], peeled.found.counts[:top]
    likely = counts >= rule.pixels
    ranking = RankedKeys(keys[likely], counts[likely])
    sigma = row_error(peeled.rest)
    error = estimate_error(sigma, peeled.rest.spec.rows)
    sites = present_at(tables.presence, ranking.keys)
    return gate(ranking, sites, sigma, error, rule)


def gate(
    ranking: RankedKeys, sites: F64, sigma: float, error: float, rule: ReleaseRule
) -> NamedKeys:
    """Return the rule itself.

    Args:
        ranking: keys and their estimates.
        sites: float64[n], estimated number of sites at which each is present.
        sigma: standard error of one row of the sketch.
        error: standard error of an estimate, which is a median over rows.
        rule: what a key must reach.

    Returns:
        Keys with an estimate of at least ``pixels``, ``pixels - 1 + margin * error`` and
        ``sigmas * sigma``, and, to the nearest whole number, ``sites`` sites. NaN never
        passes.
    """
    least = max(float(rule.pixels), rule.pixels - 1 + rule.margin * error)
    threshold = max(least, rule.sigmas * sigma)
    passed = (ranking.counts >= threshold) & (sites >= rule.sites - 0.5)
    return NamedKeys(ranking.keys[passed], ranking.counts[passed], threshold, sigma)


def present_at(presence: CountSketch, keys: U64) -> F64:
    """Estimated number of sites at which each key is present, float64[n].

    Raises:
        RefusedError: the estimate's standard error is more than a quarter of a site.
    """
    sites = presence.estimate(keys)
    error = estimate_error(row_error(peel(presence, keys, 0).rest), presence.spec.rows)
    if keys.size and error > _PRESENCE_ERROR:
        raise RefusedError(
            "the presence sketch cannot tell one site from two",
            field="presence",
            expected=f"a standard error of at most {_PRESENCE_ERROR} sites",
            got=f"{error:.2f}",
            advice="Raise the plan's presence floor, or its columns",
        )
    return sites

"""The demonstration's ``summary.json``: what came of it, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator.report.extras import LedgerVerdict
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts
from common.plan import FederationPlan
from deploy.demo_pixels import judge
from deploy.demo_pixels.data import SITES, Labels

WHAT: Final = (
    "Indian Pines: an airborne scene of farmland and woods, 145 x 145 pixels of 200 bands. "
    "Remote sensing, not tissue: it shows the machinery."
)
NAMED_BY: Final = (
    "each cluster by the commonest label of its pixels, labels of all three sites together"
)


@dataclass(frozen=True, eq=False)
class FederationResults:
    """The results of the federation, read from where its parties keep them.

    Attributes:
        keys: released keys and their counts.
        exact: every key, counted in the clear.
        book: the labelled codebook.
        kinds: kind of ground of each cluster.
        ground: kind of every pixel by the sites' maps.
        truth: kind of every pixel.
    """

    keys: KeyCounts
    exact: judge.Exact
    book: Codebook
    kinds: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    ground: Labels
    truth: Labels


def measure(
    plan: FederationPlan, results: FederationResults, verdicts: tuple[LedgerVerdict, ...]
) -> dict[str, object]:
    """Return the summary's figures."""
    clusters = judge.clusters_of(results.exact, results.book)
    recovery = judge.judge_recovery(results.exact, results.keys, plan.pixels)
    owner, truth = judge.site_of(results.truth.shape), results.truth
    everywhere = np.ones(truth.shape, np.bool_)
    alone = {}
    for number, site in enumerate(SITES):
        at_site = owner == number
        kinds = judge.majority(clusters, truth, results.book.cluster_count, at_site)
        alone[site] = round(judge.agreement(kinds[clusters], truth, ~at_site), 4)
    labelled = truth[truth != 0]
    return {
        "data": WHAT,
        "coverage": round(recovery.coverage, 4),
        "recall": round(recovery.recall, 4),
        "keys": {
            "released": recovery.keys,
            "allowed_by_exact_counts": recovery.passing,
            "released_but_not_allowed": recovery.wrong,
            "in_the_scene": int(results.exact.keys.size),
            "largest_error_pixels": recovery.largest_error,
        },
        "clusters": {
            "count": results.book.cluster_count,
            "named_by": NAMED_BY,
            "purity": round(judge.agreement(results.kinds[clusters], truth, everywhere), 4),
            "maps_agree_with_labels": round(
                judge.agreement(results.ground.astype(np.int64), truth, everywhere), 4
            ),
            "largest_kind_alone": round(float(np.bincount(labelled).max() / labelled.size), 4),
            "kinds_named": len(results.book.group_names),
            "named_by_one_site_right_at_the_others": alone,
        },
        "bytes_out": {verdict.site: verdict.bytes_out for verdict in verdicts},
        "ledgers": {
            verdict.site: {"verdict": verdict.verdict, "records": verdict.records}
            for verdict in verdicts
        },
        "rule": {"pixels": plan.pixels.key_pixels, "sites": plan.pixels.key_sites},
        "seed": plan.seed,
    }

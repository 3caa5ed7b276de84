"""Clusters of embedded keys, and the codebook they make.

Clusters are numbered by how much of the counted pixels they hold, largest first,
so that a number means the same from picture to table to command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from aggregator.embedding.plane import Embedding
from common.errors import InputDataError
from common.keys.codebook import Codebook
from common.keys.codebook_rules import MAX_CLUSTERS
from common.keys.key_counts import KeyCounts

PROPOSED_GROUPS: Final = 3
_RESTARTS: Final = 10  # of k-means; the best of them counts
_NOISE: Final = -1

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class ClusterMethod:
    """A way to cluster: ``kmeans`` into so many, or ``hdbscan`` of at least so many keys each.

    Attributes:
        kind: k-means gives every key a cluster; HDBSCAN finds their number itself and
            leaves stragglers out, which then take the cluster of the nearest key.
        number: clusters for k-means; the smallest cluster for HDBSCAN, 0 for one
            hundredth of the keys and at least 5.
    """

    kind: Literal["kmeans", "hdbscan"] = "kmeans"
    number: int = 10

    def __post_init__(self) -> None:
        least = {"kmeans": 1, "hdbscan": 0}.get(self.kind)
        if least is None or not least <= self.number <= MAX_CLUSTERS or self.number == least == 1:
            raise InputDataError(
                "no such clustering",
                field="clusters",
                expected=f"kmeans:2 to kmeans:{MAX_CLUSTERS}, hdbscan, or hdbscan:KEYS",
                got=f"{self.kind}:{self.number}",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """``kmeans:10``, ``kmeans``, ``hdbscan`` or ``hdbscan:200``.

        Raises:
            InputDataError: anything else.
        """
        kind, colon, number = text.partition(":")
        if kind not in ("kmeans", "hdbscan") or (colon and not number.isdecimal()):
            raise InputDataError(
                "no such clustering",
                field="clusters",
                expected="kmeans:10, hdbscan, or hdbscan:200",
                got="something else",
            )
        default = 10 if kind == "kmeans" else 0
        return cls("kmeans" if kind == "kmeans" else "hdbscan", int(number) if colon else default)

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" if self.number else self.kind


def make_codebook(
    released: KeyCounts, embedding: Embedding, method: ClusterMethod | None = None
) -> Codebook:
    """Cluster the embedding and write the clusters down as a codebook, without groups.

    Raises:
        InputDataError: fewer keys than clusters, or no cluster found.
    """
    chosen = method or ClusterMethod()
    if not np.array_equal(released.keys, embedding.keys):
        raise InputDataError(
            "an embedding of other keys",
            field="embedding",
            expected="the released keys",
            got="other keys",
        )
    labels = _kmeans(embedding, chosen) if chosen.kind == "kmeans" else _hdbscan(embedding, chosen)
    clustered = labels != _NOISE
    clusters = _by_size(labels[clustered], released.counts[clustered])
    return Codebook.make(released.digits, released.keys[clustered], clusters, released.codec)


def _kmeans(embedding: Embedding, method: ClusterMethod) -> I64:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    different = np.unique(embedding.points, axis=0).shape[0]
    if different < method.number:
        raise InputDataError(
            "too few keys to cluster",
            field="keys",
            expected=f"at least {method.number} in different places",
            got=f"{different}",
            advice="Ask for fewer clusters",
        )
    model = KMeans(method.number, n_init=_RESTARTS, random_state=embedding.settings.seed)
    with threadpool_limits(1):  # sums in one order: the same clusters every time
        return np.asarray(model.fit_predict(embedding.points), np.int64)


def _hdbscan(embedding: Embedding, method: ClusterMethod) -> I64:
    from sklearn.cluster import HDBSCAN

    least = method.number or max(5, embedding.keys.size // 100)
    if embedding.keys.size < max(2, least):
        raise InputDataError(
            "too few keys to cluster",
            field="keys",
            expected=f"at least {max(2, least)}",
            got=f"{embedding.keys.size}",
        )
    model = HDBSCAN(min_cluster_size=max(2, least), copy=True)
    labels = np.asarray(model.fit_predict(embedding.points.astype(np.float64)), np.int64)
    if not 1 <= int(labels.max()) + 1 <= MAX_CLUSTERS:
        raise InputDataError(
            "no clusters found",
            field="clusters",
            expected=f"1 to {MAX_CLUSTERS} crowds of at least {max(2, least)} keys",
            got=f"{int(labels.max()) + 1}",
            advice="Ask for smaller clusters (hdbscan:KEYS), or for a number (kmeans:10)",
        )
    return labels


def _by_size(labels: I64, counts: I64) -> I64:
    """Renumbered so that cluster 0 holds the most counts; of equals the earlier number first."""
    sizes = np.zeros(int(labels.max()) + 1, np.int64)
    np.add.at(sizes, labels, counts)
    rank = np.empty_like(sizes)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(sizes.size)
    return rank[labels]


def propose_groups(
    codebook: Codebook, embedding: Embedding, groups: int = PROPOSED_GROUPS
) -> tuple[int, ...]:
    """Return a group for each cluster, by joining clusters that lie side by side in the plane.

    A proposal for a person to look at; nothing labels a codebook by itself. Groups
    are numbered in the order of their largest cluster.

    Returns:
        One number per cluster, 0 to ``groups`` - 1.
    """
    from sklearn.cluster import AgglomerativeClustering

    count = codebook.cluster_count
    if count <= groups:
        return tuple(range(count))
    clusters = codebook.lookup(embedding.keys)
    middles = np.array(
        [np.median(embedding.points[clusters == c], axis=0) for c in range(count)], np.float64
    )
    joined = AgglomerativeClustering(groups, linkage="average").fit_predict(middles)
    names: dict[int, int] = {}
    return tuple(names.setdefault(int(group), len(names)) for group in joined)

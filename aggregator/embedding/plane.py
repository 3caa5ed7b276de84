"""Keys as points of a plane in which similar keys lie together (UMAP).

Seeded and repeatable: the same keys and settings give the same points on the
same machine and versions. Other processors may differ in the last bits and then
in the picture; therefore sites receive the codebook, never the recipe.
Randomness comes from the seed alone.

Source: McInnes, Healy & Melville, arXiv 1802.03426.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.keys.key_counts import KeyCounts

NEIGHBOURS: Final = 50
MIN_DIST: Final = 0.0
_SMALL: Final = 4096  # below, umap itself compares all pairs


@dataclass(frozen=True)
class EmbeddingSettings:
    """Settings of an embedding; beside the keys, nothing else decides it.

    Attributes:
        seed: of the layout.
        neighbours: nearest keys that each key is laid out by; 2 or more.
        min_dist: how close points may come, 0 to 1; 0 packs clusters tightly.
    """

    seed: int = 0
    neighbours: int = NEIGHBOURS
    min_dist: float = MIN_DIST

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32 or self.neighbours < 2 or not 0 <= self.min_dist <= 1:
            raise InputDataError(
                "unusable embedding settings",
                field="seed, neighbours and min_dist",
                expected="0 to 2**32 - 1, at least 2, and 0 to 1",
                got=f"{self.seed}, {self.neighbours} and {self.min_dist:g}",
            )


@dataclass(frozen=True, eq=False)
class Embedding:
    """The place of each key.

    Attributes:
        keys: uint64[n], ascending.
        counts: int64[n].
        points: float32[n, 2]; only nearness means something, neither axis does.
        settings: what made it.
    """

    keys: NDArray[np.uint64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    points: NDArray[np.float32] = field(repr=False)
    settings: EmbeddingSettings


def embed(released: KeyCounts, settings: EmbeddingSettings | None = None) -> Embedding:
    """Lay out every key by its nearest keys in digit space.

    Counts do not weigh: a key is a kind of pixel, however frequent. Neighbours are
    found exactly. One core; memory grows with keys x neighbours.

    Raises:
        InputDataError: not more keys than neighbours.
    """
    chosen = settings or EmbeddingSettings()
    count = released.keys.size
    if count <= chosen.neighbours:
        raise InputDataError(
            "too few keys to embed",
            field="keys",
            expected=f"more than the {chosen.neighbours} neighbours",
            got=f"{count}",
            advice="Release more keys, or ask for fewer neighbours",
        )
    digits = released.digits.decode(released.keys).astype(np.float32)
    return Embedding(released.keys, released.counts, _layout(digits, chosen), chosen)


def prepare(settings: EmbeddingSettings | None = None) -> None:
    """Load UMAP and have it compile what it compiles anew in every process: some ten seconds.

    Laying out keys is as before, only sooner done; no result depends on this.
    """
    chosen = settings or EmbeddingSettings()
    rng = np.random.default_rng(0)
    _layout(rng.integers(0, 22, (chosen.neighbours + 14, 8)).astype(np.float32), chosen)


def _layout(digits: NDArray[np.float32], settings: EmbeddingSettings) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        # Of optional parts that we do not use, and of transforming further points.
        warnings.filterwarnings("ignore", category=ImportWarning)
        warnings.filterwarnings("ignore", message=r"precomputed_knn\[2\]")
        import umap
        from sklearn.neighbors import NearestNeighbors
        from threadpoolctl import threadpool_limits

        precomputed: tuple[NDArray[np.int64] | None, NDArray[np.float64] | None] = (None, None)
        with threadpool_limits(1):
            if digits.shape[0] >= _SMALL:
                search = NearestNeighbors(n_neighbors=settings.neighbours).fit(digits)
                distances, indices = search.kneighbors(digits)
                precomputed = (indices, distances)
            plane = umap.UMAP(
                n_neighbors=settings.neighbours,
                min_dist=settings.min_dist,
                random_state=settings.seed,
                n_jobs=1,
                init="pca",  # repeatable, and keeps what is far apart far apart
                precomputed_knn=precomputed,
            )
            points = plane.fit_transform(digits)
    return np.ascontiguousarray(points, np.float32)

"""The demonstration's own knowledge, since it has everything: exact counts and true labels.

No party of a real federation could compute any of this. Nothing here changes what the
federation did; it names the clusters, as a person at the page would, and measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InternalError
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts
from common.keys.pixels import PixelCodec
from common.plan import Pixels
from deploy.demo_pixels.data import CLASSES, SITES, UNLABELLED, Block, Labels, Scene, blocks
from site_client.pixels.slides import open_slide

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Exact:
    """Every key of the scene, counted in the clear.

    Attributes:
        keys: uint64[n], ascending, each once.
        counts: int64[n, sites], pixels of each at each site.
        of: int64[rows, columns], which of the keys every pixel has.
    """

    keys: U64
    counts: I64
    of: I64

    @classmethod
    def of_scene(cls, scene: Scene, codec: PixelCodec) -> Exact:
        """Count a scene of which every pixel is foreground.

        Raises:
            InternalError: one is not.
        """
        encoded, foreground = codec.encode(scene.reshape(-1, scene.shape[2]))
        if not foreground.all():
            raise InternalError("a pixel of the scene counts as background")
        keys, of = np.unique(encoded, return_inverse=True)
        owner = site_of(scene.shape[:2]).ravel()
        counts = np.zeros((keys.size, len(SITES)), np.int64)
        np.add.at(counts, (of.ravel(), owner), 1)
        return cls(keys, counts, of.reshape(scene.shape[:2]).astype(np.int64))

    def passing(self, section: Pixels) -> NDArray[np.bool_]:
        """Mark the keys that a plan lets be named, were counts exact; bool[n]."""
        present = np.count_nonzero(self.counts >= section.presence_floor, axis=1)
        frequent = self.counts.sum(axis=1) >= section.key_pixels
        return np.asarray(frequent & (present >= section.key_sites), np.bool_)


def site_of(shape: tuple[int, ...]) -> I64:
    """Map each pixel to the number of its site, int64[rows, columns]."""
    owner = np.zeros(shape, np.int64)
    for block in blocks(*shape):
        block.cut(owner)[...] = block.site
    return owner


@dataclass(frozen=True)
class Recovery:
    """The share that the federation found of what it was allowed to find.

    Attributes:
        keys: that were named.
        passing: keys that pass the plan's rule by exact counts.
        recall: share of those that were named.
        wrong: named keys that do not pass.
        coverage: share of all pixels whose key was named.
        largest_error: of the named keys' counts, in pixels.
    """

    keys: int
    passing: int
    recall: float
    wrong: int
    coverage: float
    largest_error: int


def judge_recovery(exact: Exact, released: KeyCounts, section: Pixels) -> Recovery:
    """Compare what was named with what exact counting would name.

    Raises:
        InternalError: a key was named that no pixel has.
    """
    place = np.searchsorted(exact.keys, released.keys)
    place = np.minimum(place, exact.keys.size - 1)
    if not np.array_equal(exact.keys[place], released.keys):
        raise InternalError("a key was named that no pixel of the scene has")
    passing = exact.passing(section)
    totals = exact.counts.sum(axis=1)
    recovered = int(np.count_nonzero(passing[place]))
    return Recovery(
        keys=int(released.keys.size),
        passing=int(np.count_nonzero(passing)),
        recall=recovered / max(1, int(np.count_nonzero(passing))),
        wrong=int(released.keys.size) - recovered,
        coverage=float(totals[place].sum() / totals.sum()),
        largest_error=int(np.abs(released.counts - totals[place]).max()),
    )


def clusters_of(exact: Exact, book: Codebook) -> I64:
    """Cluster of every pixel, int64[rows, columns]."""
    return book.lookup(exact.keys).astype(np.int64)[exact.of]


def majority(clusters: I64, truth: Labels, count: int, where: NDArray[np.bool_]) -> I64:
    """Return the commonest kind among a cluster's labelled pixels, int64[count].

    Args:
        clusters: of every pixel.
        truth: kind of every pixel, 0 where nobody knows.
        count: clusters.
        where: which pixels may speak.

    Returns:
        Kinds; 0 for a cluster none of whose pixels is labelled. Of equally common kinds the
        smallest number.
    """
    votes = np.zeros((count, len(CLASSES)), np.int64)
    labelled = where & (truth != UNLABELLED)
    np.add.at(votes, (clusters[labelled], truth[labelled]), 1)
    return np.asarray(votes.argmax(axis=1), np.int64)


def group_words(kinds: I64) -> list[str]:
    """``--group`` arguments that name each cluster by its kind: ``woods=0,3``."""
    return [
        f"{CLASSES[kind]}={','.join(str(c) for c in np.flatnonzero(kinds == kind))}"
        for kind in np.unique(kinds)
    ]


def agreement(kinds: I64, truth: Labels, where: NDArray[np.bool_]) -> float:
    """Share of the labelled pixels among ``where`` whose kind is right."""
    labelled = where & (truth != UNLABELLED)
    return float(np.mean(kinds[labelled] == truth[labelled]))


def join_maps(shape: tuple[int, int], maps: dict[str, Path]) -> NDArray[np.uint8]:
    """Return the sites' maps of their slides, put together as the scene was cut.

    Args:
        shape: rows and columns of the scene.
        maps: the file of each block's map, by the block's name.

    Returns:
        uint8[rows, columns]: 0 for background, else 1 plus the group.
    """
    whole = np.zeros(shape, np.uint8)
    for block in blocks(*shape):
        whole[slice(*block.rows), slice(*block.columns)] = _read_map(maps[block.name], block)
    return whole


def _read_map(path: Path, block: Block) -> NDArray[np.uint8]:
    rows, columns = block.rows[1] - block.rows[0], block.columns[1] - block.columns[0]
    labels = np.concatenate(list(open_slide(path, ("group",)).chunks()))
    if labels.size != rows * columns:
        raise InternalError(
            "a map has another size than its slide",
            field=block.name,
            expected=f"{rows} x {columns} pixels",
            got=f"{labels.size} pixels",
        )
    return labels.reshape(rows, columns).astype(np.uint8)

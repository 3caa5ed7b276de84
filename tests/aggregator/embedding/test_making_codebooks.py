"""From released keys to clusters: repeatable, and the crowds that are there."""

import numpy as np
import pytest

from aggregator.embedding.clusters import ClusterMethod, make_codebook, propose_groups
from aggregator.embedding.plane import Embedding, EmbeddingSettings, embed
from common.errors import InputDataError
from common.keys import MixedRadix, reduced_bands
from common.keys.key_counts import KeyCounts


def crowds_found(codebook, released, crowd):
    """Pairs (crowd, cluster) that occur."""
    return set(zip(crowd.tolist(), codebook.lookup(released.keys).tolist(), strict=True))


def test_the_same_seed_gives_the_same_plane_and_another_seed_another(tissues, settings, embedding):
    again = embed(tissues[0], settings)
    assert np.array_equal(again.points, embedding.points)
    assert np.isfinite(embedding.points).all()
    assert embedding.points.shape == (240, 2)
    other = embed(tissues[0], EmbeddingSettings(seed=5, neighbours=12))
    assert not np.array_equal(other.points, embedding.points)


def test_the_global_random_state_is_neither_read_nor_moved(tissues, settings, embedding):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert np.array_equal(embed(tissues[0], settings).points, embedding.points)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_too_few_keys_are_refused(tissues):
    with pytest.raises(InputDataError, match="fewer neighbours"):
        embed(tissues[0], EmbeddingSettings(neighbours=240))
    for bad in ({"seed": -1}, {"neighbours": 1}, {"min_dist": 2.0}, {"min_dist": float("nan")}):
        with pytest.raises(InputDataError):
            EmbeddingSettings(**bad)


@pytest.mark.parametrize("method", ["kmeans:3", "hdbscan:20"])
def test_clusters_are_the_crowds_numbered_by_size(tissues, embedding, method):
    released, crowd = tissues
    book = make_codebook(released, embedding, ClusterMethod.parse(method))
    assert crowds_found(book, released, crowd) == {(1, 0), (2, 1), (0, 2)}
    again = make_codebook(released, embedding, ClusterMethod.parse(method))
    assert again.digest == book.digest
    assert book.codec == released.codec


def placed(points, counts=None):
    """An embedding with chosen points, and its keys."""
    points = np.asarray(points, np.float32)
    keys = np.arange(points.shape[0], dtype=np.uint64)
    counts = np.ones(keys.size, np.int64) if counts is None else np.asarray(counts)
    released = KeyCounts(MixedRadix([4096], ["x"]), keys, counts)
    return released, Embedding(released.keys, released.counts, points, EmbeddingSettings())


def test_stragglers_of_hdbscan_follow_their_nearest_key():
    rng = np.random.default_rng(0)
    crowds = [rng.normal(0, 0.05, (30, 2)), rng.normal(0, 0.05, (30, 2)) + 10]
    released, embedding = placed(np.concatenate([*crowds, [[100.0, -100.0]]]))
    book = make_codebook(released, embedding, ClusterMethod("hdbscan", 10))
    assert book.cluster_count == 2
    assert book.keys.size == 60
    assert 60 not in book.keys
    assert book.lookup(np.array([60], np.uint64)) == book.lookup(np.array([59], np.uint64))


def test_one_shapeless_crowd_is_refused_by_hdbscan_with_advice():
    released, embedding = placed(np.random.default_rng(1).uniform(0, 1, (40, 2)))
    with pytest.raises(InputDataError, match="kmeans:10"):
        make_codebook(released, embedding, ClusterMethod("hdbscan", 35))


def test_more_clusters_than_places_are_refused():
    released, embedding = placed(np.zeros((20, 2)))
    with pytest.raises(InputDataError, match="fewer clusters"):
        make_codebook(released, embedding, ClusterMethod("kmeans", 2))


def test_an_embedding_of_other_keys_is_refused(tissues, embedding):
    released = tissues[0]
    fewer = KeyCounts(released.digits, released.keys[1:], released.counts[1:])
    with pytest.raises(InputDataError, match="other keys"):
        make_codebook(fewer, embedding)


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("kmeans", ClusterMethod("kmeans", 10)),
        ("kmeans:7", ClusterMethod("kmeans", 7)),
        ("hdbscan", ClusterMethod("hdbscan", 0)),
        ("hdbscan:200", ClusterMethod("hdbscan", 200)),
    ],
)
def test_methods_are_spelled_like_this(text, method):
    assert ClusterMethod.parse(text) == method
    assert ClusterMethod.parse(str(method)) == method


@pytest.mark.parametrize(
    "text", ["", "kmeans:", "kmeans:1", "kmeans:x", "kmeans:-2", "kmeans:9999", "dbscan"]
)
def test_other_spellings_are_refused(text):
    with pytest.raises(InputDataError, match="no such clustering"):
        ClusterMethod.parse(text)


def test_proposed_groups_join_clusters_that_lie_side_by_side():
    middles = np.array([[0, 0], [20, 0], [1, 0], [40, 0], [21, 0]])
    points = np.repeat(middles, 12, axis=0) + np.random.default_rng(2).normal(0, 0.1, (60, 2))
    released, embedding = placed(points, np.repeat([50, 40, 30, 20, 10], 12))
    book = make_codebook(released, embedding, ClusterMethod("kmeans", 5))
    assert propose_groups(book, embedding) == (0, 1, 0, 2, 1)
    assert propose_groups(book, embedding, groups=5) == (0, 1, 2, 3, 4)


@pytest.mark.slow
def test_many_keys_take_the_exact_neighbour_search_and_stay_repeatable():
    rng = np.random.default_rng(8)
    digits = reduced_bands()
    middles = rng.integers(3, 19, (4, 8))
    points = np.clip(np.rint(np.repeat(middles, 2_000, 0) + rng.normal(0, 1, (8_000, 8))), 0, 21)
    keys, counts = np.unique(digits.encode(points.astype(np.int64)), return_counts=True)
    assert keys.size > 4_096
    released = KeyCounts(digits, keys, counts)
    first, second = embed(released), embed(released)
    assert np.array_equal(first.points, second.points)
    nearest = np.argmin(
        ((digits.decode(keys).astype(float)[:, None, :] - middles) ** 2).sum(axis=2), axis=1
    )
    book = make_codebook(released, first, ClusterMethod("kmeans", 4))
    assert len(crowds_found(book, released, nearest)) == 4

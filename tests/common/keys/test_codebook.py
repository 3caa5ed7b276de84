"""Every key has one cluster: its own, or that of the nearest known key."""

import json
import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.keys import MixedRadix, all_bands, reduced_bands
from common.keys import nearest as nearest_module
from common.keys.codebook import Codebook

UNTIMED = settings(deadline=None)


def codec(radices):
    return MixedRadix(radices, [f"d{i}" for i in range(len(radices))])


def nearest_by_brute_force(digits, known, keys):
    """The definition: smallest squared distance, then the smallest known key."""
    points = digits.decode(np.sort(known)).astype(np.int64)
    queries = digits.decode(keys).astype(np.int64)
    distances = ((queries[:, None, :] - points[None, :, :]) ** 2).sum(axis=2)
    return distances.argmin(axis=1)  # the first of equals, and the keys ascend


@st.composite
def codecs(draw):
    radices = draw(st.lists(st.integers(1, 4096), min_size=1, max_size=12))
    while math.prod(radices) > 2**64:
        radices.pop()
    return codec(radices)


@st.composite
def books(draw):
    digits = draw(codecs())
    known = draw(st.lists(st.integers(0, digits.size - 1), min_size=1, max_size=60, unique=True))
    count = draw(st.integers(1, len(known)))
    rest = draw(st.lists(st.integers(0, count - 1), min_size=len(known), max_size=len(known)))
    clusters = [*range(count), *rest][: len(known)]
    return Codebook.make(digits, np.array(known, np.uint64), np.array(clusters))


@st.composite
def books_with_keys(draw):
    book = draw(books())
    other = st.integers(0, book.digits.size - 1)
    keys = draw(st.lists(other | st.sampled_from(book.keys.tolist()), max_size=60))
    return book, np.array(keys, np.uint64)


def small():
    return Codebook.make(codec([4, 4]), np.array([9, 2, 15], np.uint64), np.array([0, 1, 2]))


def crowd(rng, digits, count, spread=2.0, seeds=5):
    """Distinct keys in a few crowds of digit space."""
    top = np.array(digits.radices) - 1
    middles = rng.uniform(0, top, (seeds, top.size))
    points = middles[rng.integers(0, seeds, 2 * count)] + rng.normal(0, spread, (2 * count, 1))
    points += rng.normal(0, spread, points.shape)
    keys = np.unique(digits.encode(np.clip(points, 0, top).astype(np.int64)))
    return rng.permutation(keys)[:count]


@UNTIMED
@given(books_with_keys())
def test_a_key_takes_the_cluster_of_the_nearest_known_key(case):
    book, keys = case
    expected = book.clusters[nearest_by_brute_force(book.digits, book.keys, keys)]
    assert np.array_equal(book.lookup(keys), expected)
    assert book.lookup(keys).dtype == np.int32


@pytest.mark.parametrize(
    ("digits", "spread"), [(reduced_bands(), 2.0), (all_bands(), 0.6), (codec([2] * 10), 0.5)]
)
def test_the_search_is_exact_among_many_keys_and_many_equals(digits, spread):
    rng = np.random.default_rng(3)
    known = crowd(rng, digits, 3_000, spread)
    keys = np.concatenate(
        [crowd(rng, digits, 1_500, spread), rng.integers(0, digits.size, 300, np.uint64)]
    )
    book = Codebook.make(digits, known, np.arange(known.size))
    assert np.array_equal(
        book.lookup(keys), book.clusters[nearest_by_brute_force(digits, known, keys)]
    )


@UNTIMED
@given(books())
def test_known_keys_keep_their_own_cluster(book):
    assert np.array_equal(book.lookup(book.keys), book.clusters)


@UNTIMED
@given(books(), st.randoms(use_true_random=False))
def test_the_order_of_the_keys_makes_no_difference(book, random):
    order = list(range(book.keys.size))
    random.shuffle(order)
    again = Codebook.make(book.digits, book.keys[order], book.clusters[order])
    assert again == book
    assert again.digest == book.digest
    assert hash(again) == hash(book)


@UNTIMED
@given(books(), st.data())
def test_bytes_survive_the_round_trip(book, data):
    if data.draw(st.booleans()):
        names = st.sampled_from(["tumour", "immune", "other"])
        book = book.label({c: data.draw(names) for c in range(book.cluster_count)})
    again = Codebook.from_bytes(book.to_bytes(), codec=book.codec)
    assert again == book
    assert again.to_bytes() == book.to_bytes()
    assert (again.group_names, again.group_of) == (book.group_names, book.group_of)
    assert np.array_equal(again.keys, book.keys)
    assert np.array_equal(again.clusters, book.clusters)


def test_the_bytes_are_frozen():
    book = small().label({0: "tumour", 1: "other", 2: "tumour"})
    assert book.to_bytes() == (
        b'{"clusters":[1,0,2],'
        b'"codec":"a6358b9010e9f0ac03d784f73b164fcbd7eb5b81f87e19216213c4a90c202106",'
        b'"digits":{"names":["d0","d1"],"radices":["4","4"]},'
        b'"group_names":["other","tumour"],"group_of":[1,0,1],'
        b'"keys":["2","9","15"],"kind":"codebook","version":1}'
    )


def test_groups_come_from_labels_and_number_alphabetically():
    book = small().label({0: "tumour", 1: "other", 2: "other"})
    assert book.group_names == ("other", "tumour")
    keys = np.array([9, 2, 15, 9], np.uint64)
    assert book.groups(keys).tolist() == [1, 0, 0, 1]
    assert book.groups(keys).dtype == np.uint8


def test_groups_can_be_given_an_order():
    book = small().label({0: "a", 1: "b", 2: "b"}, order=("b", "a"))
    assert book.group_names == ("b", "a")
    assert book.groups(book.keys).tolist() == [0, 1, 0]
    with pytest.raises(InputDataError, match="each group's name once"):
        small().label({0: "a", 1: "b", 2: "b"}, order=("b",))


def test_labelling_again_replaces_the_groups_and_changes_nothing_else():
    first = small().label({0: "a", 1: "b", 2: "b"})
    second = first.label({0: "x", 1: "x", 2: "x"})
    assert first.group_names == ("a", "b")
    assert second.group_names == ("x",)
    assert second.digest != first.digest
    assert np.array_equal(second.clusters, first.clusters)


def test_an_unlabelled_codebook_has_no_groups_to_give():
    with pytest.raises(InputDataError, match="Label it first"):
        small().groups(np.array([1], np.uint64))


@pytest.mark.parametrize(
    "groups",
    [{0: "a", 1: "b"}, {0: "a", 1: "b", 2: "b", 3: "b"}, {0: "", 1: "b", 2: "b"}, {}]
    + [{0: name, 1: "b", 2: "b"} for name in ("a\n", "x" * 65)],
)
def test_labels_that_leave_a_cluster_out_or_cannot_be_printed_are_refused(groups):
    with pytest.raises(InputDataError):
        small().label(groups)


def test_keys_of_another_codec_are_refused():
    book = small()
    book.require_codec(book.digits.identity)
    with pytest.raises(InputDataError, match="this plan's codec"):
        book.require_codec(reduced_bands().identity)
    with pytest.raises(InputDataError, match="this plan's codec"):
        Codebook.from_bytes(book.to_bytes(), codec="0" * 64)
    for keys in (np.array([16], np.uint64), np.array([1]), np.array([[1]], np.uint64)):
        with pytest.raises(InputDataError):
            book.lookup(keys)


def test_a_codec_can_say_more_than_its_digits():
    book = Codebook.make(codec([4, 4]), np.array([3], np.uint64), np.array([0]), codec="ab" * 32)
    book.require_codec("ab" * 32)
    assert book != Codebook.make(codec([4, 4]), book.keys, book.clusters)
    assert Codebook.from_bytes(book.to_bytes()).codec == "ab" * 32


@pytest.mark.parametrize(
    ("keys", "clusters"),
    [
        (np.array([1, 1], np.uint64), np.array([0, 1])),
        (np.array([1, 16], np.uint64), np.array([0, 1])),
        (np.array([1, 2], np.int64), np.array([0, 1])),
        (np.array([1, 2], np.uint64), np.array([0, 2])),
        (np.array([1, 2], np.uint64), np.array([-1, 0])),
        (np.array([1, 2], np.uint64), np.array([0.0, 1.0])),
        (np.array([1, 2], np.uint64), np.array([0])),
        (np.array([], np.uint64), np.array([], np.int64)),
    ],
)
def test_keys_and_clusters_that_do_not_fit_are_refused(keys, clusters):
    with pytest.raises(InputDataError, match="unusable codebook"):
        Codebook.make(codec([4, 4]), keys, clusters)


def test_codecs_too_wide_for_exact_distances_are_refused():
    with pytest.raises(InputDataError, match="at most 4096"):
        Codebook.make(codec([4097]), np.array([0], np.uint64), np.array([0]))


def altered(book, **changes):
    document = json.loads(book.to_bytes()) | changes
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "cookbook"},
        {"version": 2},
        {"extra": 1},
        {"keys": ["9", "2", "15"]},
        {"keys": ["2", "9", "16"]},
        {"keys": ["-2", "9", "15"]},
        {"keys": ["02", "9", "15"]},
        {"keys": [2, 9, 15]},
        {"keys": ["2", "9"]},
        {"keys": None},
        {"clusters": [1, 0, 2.5]},
        {"clusters": [1, 0, 3]},
        {"clusters": [[1], [0], [2]]},
        {"codec": "ABC"},
        {"codec": 7},
        {"digits": {"names": ["d0", "d1"], "radices": ["4", "x"]}},
        {"digits": {"names": "ab", "radices": ["4", "4"]}},
        {"digits": []},
        {"group_names": ["a"]},
        {"group_names": ["a"], "group_of": [0, 0]},
        {"group_names": ["a"], "group_of": [0, 0, 1]},
        {"group_names": ["a", "b"], "group_of": [0, 1, True]},
        {"group_names": ["a", "b"], "group_of": [0, 0, 0]},
    ],
)
def test_any_other_document_is_refused(changes):
    with pytest.raises(InputDataError):
        Codebook.from_bytes(altered(small(), **changes))


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{}", b"null", b"7"])
def test_any_other_bytes_are_refused(data):
    with pytest.raises(InputDataError):
        Codebook.from_bytes(data)
    with pytest.raises(InputDataError):
        Codebook.from_bytes(b" " + small().to_bytes())


def test_keys_cannot_be_changed_behind_its_back():
    known = np.array([1, 2], np.uint64)
    book = Codebook(codec([4]), known, np.array([0, 1]))
    known[0] = 0
    assert book.keys.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        book.clusters[0] = 1


def test_what_was_asked_before_changes_no_answer(monkeypatch):
    monkeypatch.setattr(nearest_module, "_REMEMBERED", 700)
    rng = np.random.default_rng(5)
    digits = reduced_bands()
    known = crowd(rng, digits, 300)
    book = Codebook.make(digits, known, np.arange(known.size) % 7)
    keys = rng.integers(0, digits.size, 2_000, np.uint64)
    expected = book.clusters[nearest_by_brute_force(digits, known, keys)]
    for _ in range(2):
        for start in (0, 500, 250, 1_500, 1_000):
            assert np.array_equal(
                book.lookup(keys[start : start + 500]), expected[start : start + 500]
            )
    held = book._places._table.keys
    assert held.size == 300 + 700 == np.unique(held).size


def test_several_threads_get_the_same_answers():
    rng = np.random.default_rng(6)
    digits = reduced_bands()
    book = Codebook.make(digits, crowd(rng, digits, 500), np.arange(500) % 9)
    keys = rng.integers(0, digits.size, 20_000, np.uint64)
    expected = Codebook.from_bytes(book.to_bytes()).lookup(keys)
    answers = {}

    def ask(name):
        parts = np.array_split(np.arange(keys.size), 10)
        answers[name] = [(part, book.lookup(keys[part])) for part in parts[name:] + parts[:name]]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    for parts in answers.values():
        for part, found in parts:
            assert np.array_equal(found, expected[part])

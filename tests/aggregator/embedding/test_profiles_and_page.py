"""Profiles by hand, and a page that needs nothing but itself."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.embedding import drawings
from aggregator.embedding.clusters import ClusterMethod, make_codebook
from aggregator.embedding.page import render, write_codebook_page
from aggregator.embedding.profiles import Projection, make_profiles, read_projection
from common.errors import InputDataError
from common.keys import MixedRadix
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts
from common.keys.pixel_projection import UNIT, PixelProjection
from common.keys.pixels import PixelCodec

DIGITS = MixedRadix([10, 10], ["red", "green"])


def two_clusters():
    keys = DIGITS.encode([[0, 4], [2, 4], [9, 4]])
    return (
        Codebook.make(DIGITS, keys, np.array([0, 0, 1])),
        KeyCounts(DIGITS, keys, np.array([3, 1, 4])),
    )


def test_profiles_are_means_over_pixels():
    first, second = make_profiles(*two_clusters()).clusters
    assert (first.keys, first.count, first.share) == (2, 4, 0.5)
    assert first.means == (0.5, 4.0)
    assert second.means == (9.0, 4.0)
    # All pixels: red 0, 0, 0, 2, 9, 9, 9, 9 has mean 4.75.
    spread = np.std([0, 0, 0, 2, 9, 9, 9, 9])
    assert second.contrast == pytest.approx(((9 - 4.75) / spread, 0.0))


def test_a_projection_names_the_bands():
    bands = Projection.affine(["B", "S"], [[1.0, 0.0], [2.0, -1.0]], [0.0, 100.0])
    value = make_profiles(*two_clusters(), bands)
    assert value.axes == ("B", "S")
    assert value.clusters[0].means == pytest.approx((0.5 + 2 * 4, 100 - 4))


def rotated_codec():
    """Two components of three bands, and a projection that loses the third direction."""
    directions = np.array([[0.6, 0.8, 0.0], [0.8, -0.6, 0.0]])
    weights = np.rint(directions * UNIT).astype(np.int32)
    projection = PixelProjection(("R", "G", "B"), 1, weights, 100)
    return PixelCodec(projection, (-1024, -2048), (2048, 2048), bins=512)


def test_a_pixel_codec_leads_back_to_its_bands(tmp_path):
    codec = rotated_codec()
    pixels = np.array([[30, 40, 0], [200, 10, 0], [5, 90, 0]], np.uint16)
    keys, _ = codec.encode(pixels)
    released = KeyCounts(codec.digits, keys, np.ones(3, np.int64), codec.identity)
    book = Codebook.make(codec.digits, keys, np.arange(3), codec.identity)
    path = tmp_path / "codec.json"
    path.write_text(json.dumps(codec.as_dict()))
    shares = pixels / np.linalg.norm(pixels.astype(float), axis=1, keepdims=True)
    for bands in (Projection.of_codec(codec), read_projection(path)):
        profiles = make_profiles(book, released, bands)
        assert profiles.axes == ("R", "G", "B")
        for share, cluster in zip(shares, book.lookup(keys), strict=True):
            assert profiles.clusters[cluster].means == pytest.approx(share, abs=0.01)


@settings(deadline=None)
@given(st.data())
def test_shares_sum_to_one_and_means_to_the_mean_of_all(data):
    keys = data.draw(st.lists(st.integers(0, 99), min_size=2, max_size=20, unique=True))
    counts = data.draw(st.lists(st.integers(1, 1000), min_size=len(keys), max_size=len(keys)))
    released = KeyCounts(DIGITS, np.array(keys, np.uint64), np.array(counts))
    book = Codebook.make(DIGITS, released.keys, np.arange(len(keys)) % 2)
    profiles = make_profiles(book, released)
    assert sum(p.share for p in profiles.clusters) == pytest.approx(1)
    assert sum(p.keys for p in profiles.clusters) == len(keys)
    assert profiles.total == sum(counts)
    whole = np.average(DIGITS.decode(released.keys), axis=0, weights=released.counts)
    parts = sum(p.share * np.array(p.means) for p in profiles.clusters)
    assert parts == pytest.approx(whole)
    assert sum(p.share * np.array(p.contrast) for p in profiles.clusters) == pytest.approx(
        0, abs=1e-9
    )


def test_a_cluster_without_a_key_here_has_nothing_to_say():
    book, released = two_clusters()
    first = KeyCounts(DIGITS, released.keys[:1], released.counts[:1])
    profiles = make_profiles(book, first)
    assert sorted(p.count for p in profiles.clusters) == [0, 3]
    assert all(p.contrast == (0.0, 0.0) for p in profiles.clusters)


def test_keys_of_another_codec_have_no_profile():
    book, released = two_clusters()
    other = KeyCounts(DIGITS, released.keys, released.counts, codec="ab" * 32)
    with pytest.raises(InputDataError, match="codec"):
        make_profiles(book, other)


def test_projections_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputDataError, match="matrix"):
        Projection.affine(["B"], [[1.0, 2.0]])
    with pytest.raises(InputDataError, match="finite"):
        Projection.affine(["B"], [[1.0], [np.nan]])
    with pytest.raises(InputDataError, match="2 rows"):
        make_profiles(*two_clusters(), Projection.affine(["B"], [[1.0]]))
    with pytest.raises(InputDataError, match="projection"):
        make_profiles(*two_clusters(), Projection(("B",), lambda digits: digits))
    path = tmp_path / "bands.json"
    refused = (
        "",
        "[]",
        '{"names":["B"]}',
        '{"names":"B","matrix":[[1],[1]]}',
        '{"names":["B"],"matrix":[["x"],[1]]}',
        '{"names":["B"],"matrix":[[1],[1]],"z":1}',
    )
    for text in refused:
        path.write_text(text)
        with pytest.raises(InputDataError, match="unusable projection"):
            read_projection(path)
    path.write_text(json.dumps({"names": ["B"], "matrix": [[1], [0]]}))
    assert make_profiles(*two_clusters(), read_projection(path)).axes == ("B",)


@pytest.fixture(scope="module")
def made(tissues, embedding):
    released = tissues[0]
    book = make_codebook(released, embedding, ClusterMethod("kmeans", 5))
    return book, embedding, make_profiles(book, released)


def test_the_page_needs_nothing_but_itself_and_comes_out_the_same(made, tmp_path):
    path = tmp_path / "page.html"
    write_codebook_page(path, *made)
    page = path.read_text("utf-8")
    assert page == render(*made)
    assert list(tmp_path.iterdir()) == [path]
    assert not re.search(r"<script|<link|@import", page)
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)", page)
    assert sources
    assert all((a or b).startswith(("#", "data:image/png")) for a, b in sources)


def test_the_page_says_what_is_proposed_and_what_is_decided(made):
    book, embedding, profiles = made
    page = render(*made)
    assert "NOT YET LABELLED" in page
    assert "Proposed groups" in page
    assert book.digest in page
    labelled = book.label(dict.fromkeys(range(4), "tumour") | {4: "<other> & more"})
    page = render(labelled, embedding, profiles)
    assert "NOT YET LABELLED" not in page
    assert "Proposed" not in page
    assert "&lt;other&gt; &amp; more" in page
    assert "<other>" not in page


def test_the_page_names_every_cluster_with_its_numbers_and_no_key(made):
    book, _, profiles = made
    page = render(*made)
    for profile in profiles.clusters:
        assert f"<td>{profile.keys:,}</td><td>{profile.count:,}</td>" in page
    assert not any(str(key) in page for key in book.keys.tolist() if key > 10**6)


def test_profiles_of_another_codebook_are_refused(made):
    book, embedding, _ = made
    with pytest.raises(InputDataError, match="another codebook"):
        render(book, embedding, make_profiles(*two_clusters()))


@pytest.mark.parametrize(("bands", "named"), [(35, 35), (200, 67)])
def test_as_many_bands_are_named_as_can_be_read(bands, named):
    axes = [f"band-{i:03d}" for i in range(bands)]
    rng = np.random.default_rng(0)
    seen = Projection.affine(axes, rng.normal(size=(2, bands)), np.zeros(bands))
    value = make_profiles(*two_clusters(), seen)
    drawn = str(drawings.profiles(value, (0, 1), ("A", "B")))
    picture = drawn[drawn.index("<g") :]
    assert len(set(re.findall(r">(band-\d{3})<", picture))) == named

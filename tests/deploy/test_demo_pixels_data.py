"""The pixel demonstration's data, its judge and its policies, on a scene small enough to check."""

from __future__ import annotations

import importlib.util
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.canonical import sha256_hex
from common.errors import InputDataError, InternalError
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import fit_ranges, fit_widest
from common.plan import Pixels, parse_plan, read_plan
from common.policy import check_plan, read_policy
from deploy.demo_pixels import judge, warmup
from deploy.demo_pixels.__main__ import _ALLOW, PLANS, allow_pixels, write_maps_plan
from deploy.demo_pixels.data import (
    CLASSES,
    SITES,
    band_names,
    blocks,
    read_scene,
    slide_name,
    write_sites,
)
from deploy.demo_pixels.picture import write_picture
from site_client.egress.policy import default_policy_text
from site_client.pixels.embed import embed, write_map
from site_client.pixels.slides import open_slide
from site_client.pixels.statistics import component_ranges, survey
from site_client.worker.slide_folder import find_slides

SHAPE = (30, 24)
BANDS = 6
ASKED = Pixels(
    bands=band_names(BANDS),
    components=4,
    bins=6,
    floor=1,
    presence_floor=1,
    key_pixels=5,
    key_sites=2,
)


@pytest.fixture
def scene():
    """Three kinds of ground in stripes across all blocks: uint16[rows, columns, bands]."""
    rng = np.random.default_rng(5)
    truth = np.repeat(np.arange(SHAPE[1])[None] % 4, SHAPE[0], axis=0).astype(np.uint8)
    spectra = rng.integers(300, 4000, (4, BANDS))
    noise = rng.integers(0, 900, (*SHAPE, BANDS))
    return (spectra[truth] + noise).astype(np.uint16), truth


class InMemory:
    bands = ASKED.bands

    def __init__(self, pixels):
        self.pixels = pixels

    def chunks(self):
        yield self.pixels.reshape(-1, BANDS)


@pytest.fixture
def codec(scene):
    whole = InMemory(scene[0])
    widest = fit_widest(ASKED, survey(whole))
    return fit_ranges(ASKED, widest, component_ranges(whole, widest.projection))


@given(st.integers(3, 300), st.integers(3, 300))
def test_the_blocks_are_the_scene_once_and_every_site_has_one_of_each_row_and_column(h, w):
    seen = np.zeros((h, w), int)
    for block in blocks(h, w):
        block.cut(seen)[...] += 1
    assert (seen == 1).all()
    for site in range(3):
        own = [block for block in blocks(h, w) if block.site == site]
        assert sorted(block.row for block in own) == [0, 1, 2]
        assert sorted(block.column for block in own) == [0, 1, 2]


def test_every_site_has_its_own_format_and_each_slide_reads_back_as_its_block(scene, tmp_path):
    pixels, _ = scene
    homes = write_sites(tmp_path, pixels)
    suffixes = [{"".join(path.suffixes) for path in find_slides(home)} for home in homes]
    assert suffixes == [{".ome.tif"}, {""}, {".npy"}]
    for block in blocks(*SHAPE):
        slide = open_slide(homes[block.site] / slide_name(block), ASKED.bands)
        read = np.concatenate(list(slide.chunks())).reshape(slide.shape)
        np.testing.assert_array_equal(read, block.cut(pixels))


def test_the_bands_of_the_third_site_stand_in_another_order_on_disk(scene, tmp_path):
    write_sites(tmp_path, scene[0])
    block = next(block for block in blocks(*SHAPE) if block.site == 2)
    stored = np.load(tmp_path / "site-c" / slide_name(block))
    np.testing.assert_array_equal(stored[..., 0], block.cut(scene[0])[..., -1])
    names = (tmp_path / "site-c" / "bands.txt").read_text().split()
    assert names == list(reversed(ASKED.bands))


def test_exact_counting_knows_which_site_has_each_pixel(scene, codec):
    exact = judge.Exact.of_scene(scene[0], codec)
    assert exact.counts.sum() == SHAPE[0] * SHAPE[1]
    for block in blocks(*SHAPE):
        keys, _ = codec.encode(block.cut(scene[0]).reshape(-1, BANDS))
        np.testing.assert_array_equal(exact.keys[block.cut(exact.of).ravel()], keys)
    owner = judge.site_of(SHAPE)
    expected = [np.count_nonzero(owner == site) for site in range(3)]
    np.testing.assert_array_equal(exact.counts.sum(axis=0), expected)


def test_a_judge_sees_a_missing_key_a_forbidden_key_and_a_wrong_count(scene, codec):
    exact = judge.Exact.of_scene(scene[0], codec)
    passing = exact.passing(ASKED)
    totals = exact.counts.sum(axis=1)
    assert 1 < np.count_nonzero(passing) < passing.size
    allowed = KeyCounts(codec.digits, exact.keys[passing], totals[passing], codec.identity)
    found = judge.judge_recovery(exact, allowed, ASKED)
    assert (found.recall, found.wrong, found.largest_error) == (1.0, 0, 0)
    assert found.coverage == pytest.approx(totals[passing].sum() / totals.sum())

    fewer = allowed.keys[1:], allowed.counts[1:] + 3
    found = judge.judge_recovery(exact, KeyCounts(codec.digits, *fewer, codec.identity), ASKED)
    assert found.recall == pytest.approx(1 - 1 / found.passing)
    assert found.largest_error == 3

    every = KeyCounts(codec.digits, exact.keys, totals, codec.identity)
    assert judge.judge_recovery(exact, every, ASKED).wrong == np.count_nonzero(~passing)

    foreign = np.setdiff1d(np.arange(50, dtype=np.uint64), exact.keys)[:1]
    made_up = KeyCounts(codec.digits, foreign, np.array([9]), codec.identity)
    with pytest.raises(InternalError, match="no pixel of the scene has"):
        judge.judge_recovery(exact, made_up, ASKED)


def test_a_frequent_key_of_one_site_does_not_pass():
    counts = np.array([[90, 0, 0], [3, 2, 0], [2, 2, 0], [4, 0, 1]])
    exact = judge.Exact(np.arange(4, dtype=np.uint64), counts, np.zeros((1, 1), np.int64))
    assert exact.passing(ASKED).tolist() == [False, True, False, True]


def test_clusters_are_named_by_their_commonest_label_and_silence_is_no_vote():
    clusters = np.array([[0, 0, 0, 1, 1, 2]])
    truth = np.array([[14, 14, 3, 0, 0, 10]], np.uint8)
    everywhere = np.ones(truth.shape, bool)
    kinds = judge.majority(clusters, truth, 3, everywhere)
    assert [CLASSES[kind] for kind in kinds] == ["woods", "unlabelled", "soybean no-till"]
    assert judge.group_words(kinds) == ["unlabelled=1", "soybean no-till=2", "woods=0"]
    assert judge.agreement(kinds[clusters], truth, everywhere) == pytest.approx(3 / 4)
    few = truth != 14
    assert judge.majority(clusters, truth, 3, few).tolist() == [3, 0, 10]


def test_the_sites_maps_are_joined_as_the_scene_was_cut(scene, codec, tmp_path):
    homes = write_sites(tmp_path / "data", scene[0])
    exact = judge.Exact.of_scene(scene[0], codec)
    book = Codebook.make(codec.digits, exact.keys, np.arange(exact.keys.size) % 3, codec.identity)
    book = book.label({0: "woods", 1: "wheat", 2: "oats"})
    maps = {}
    for block in blocks(*SHAPE):
        slide = open_slide(homes[block.site] / slide_name(block), ASKED.bands)
        maps[block.name] = tmp_path / f"{block.name}.mha"
        write_map(maps[block.name], embed(slide, codec, book))
    joined = judge.join_maps(SHAPE, maps)
    np.testing.assert_array_equal(joined, 1 + book.groups(exact.keys)[exact.of])
    maps["block-00"] = tmp_path / "other.mha"
    write_map(maps["block-00"], np.zeros((2, 2), np.uint8))
    with pytest.raises(InternalError, match="another size"):
        judge.join_maps(SHAPE, maps)


def test_policies_edited_as_their_owners_would_serve_both_plans_and_no_laxer_one(tmp_path):
    for site in SITES:
        (tmp_path / site).mkdir()
        (tmp_path / site / "policy.toml").write_text(default_policy_text())
    allow_pixels(tmp_path)
    plan, maps = (read_plan(PLANS / f"{name}.toml") for name in ("pixels-demo", "pixels-demo-maps"))
    for site in SITES:
        policy = read_policy(tmp_path / site / "policy.toml")
        check_plan(policy, plan)
        check_plan(policy, maps)
        assert policy.pixels.key_pixels == plan.pixels.key_pixels
        assert policy.pixels.pixels <= plan.pixels.min_pixels
    with pytest.raises(InternalError, match="reads differently"):
        allow_pixels(tmp_path)
    assert all(default_policy_text().count(before) == 1 for before, _ in _ALLOW)


def test_the_demonstrations_plan_asks_for_the_scenes_bands():
    plan = read_plan(PLANS / "pixels-demo.toml")
    assert plan.pixels.bands == band_names()
    assert plan.pixels.components == 8


def test_the_follow_up_plan_names_the_documents_that_exist(scene, codec, tmp_path):
    keys = judge.Exact.of_scene(scene[0], codec).keys
    book = Codebook.make(codec.digits, keys, np.arange(keys.size) % 2, codec.identity)
    book = book.label({0: "woods", 1: "oats"})
    write_maps_plan(tmp_path, b"a codec", book, seed=7)
    plan = parse_plan(tomllib.loads((tmp_path / "maps.toml").read_text()))
    assert plan.embed.codec == sha256_hex(b"a codec")
    assert plan.embed.codebook == sha256_hex(book.to_bytes())
    assert plan.embed.groups == ("oats", "woods")
    assert plan.seed == 7


def test_the_warm_up_goes_the_whole_road_over_noise(capsys):
    warmup.main()
    assert capsys.readouterr().out == ""


def test_the_picture_is_drawn(tmp_path, scene):
    truth = scene[1]
    points = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    counts, kinds = np.arange(1, 10), np.arange(9) % 4
    write_picture(tmp_path / "map.png", points, counts, kinds, truth, truth, "a caption")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_scene_that_is_not_installed_is_named_with_what_to_type(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputDataError, match="pip install --no-deps tensorly"):
        read_scene()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorly") is None, reason="tensorly's scene is not installed"
)
def test_the_scene_is_indian_pines():
    scene, truth = read_scene()
    assert (scene.shape, scene.dtype) == ((145, 145, 200), np.uint16)
    assert np.bincount(truth.ravel())[[0, 11, 14]].tolist() == [10776, 2455, 1265]
    assert len(CLASSES) == 17
    floor = read_plan(PLANS / "pixels-demo.toml").pixels.min_pixels
    sizes = np.bincount(judge.site_of(truth.shape).ravel())
    assert sizes.sum() == 21_025
    assert sizes.min() >= floor

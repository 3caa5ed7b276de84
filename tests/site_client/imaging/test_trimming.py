"""Copies of images that are cut down: the same pixels at the same places, less of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from site_client.imaging.case_sets import Cases
from site_client.imaging.dataset import Case
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.planar import Picture
from site_client.imaging.trimming import are_inside, joined, trimmed
from site_client.imaging.volumes import Volume

NAMES = ("a", "b", "c", "d")


def picture(rng, marks=4):
    pixels = rng.integers(0, 255, (2, 40, 50)).astype(np.uint8)
    made = Picture(pixels, 0.5, np.array([0.5, 0.5]), np.array([5.0, 6.0, 7.0]), np.eye(3)[:, :2])
    return PictureCase("p", "p", made, rng.uniform(0, 1, (marks, 2)) * (24.5, 19.5))


def volume(rng, marks=4):
    voxels = rng.integers(0, 255, (20, 22, 24)).astype(np.uint8)
    made = Volume(voxels, 2.0, (-9.0, 3.0, 4.0), np.eye(3))
    return Case("v", made, made.index_to_world(rng.uniform(0, 1, (marks, 3)) * (23, 21, 19)))


@given(st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_a_copy_loses_a_landmark_and_keeps_one_and_all_stay_where_they_are(seed):
    rng = np.random.default_rng(seed)
    case = picture(rng)
    for cut in trimmed(Cases(NAMES, pictures=(case,)), 3, rng).pictures:
        inside = are_inside(cut)
        assert inside.any()
        assert not inside.all()
        world, was = (
            cut.picture.to_world(cut.landmarks_mm),
            case.picture.to_world(case.landmarks_mm),
        )
        assert np.allclose(world, was)
        x, y = np.rint((cut.picture.origin_mm - case.picture.origin_mm)[:2] / 0.5).astype(int)
        height, width = cut.picture.channels.shape[1:]
        kept = case.picture.channels[:, y : y + height, x : x + width]
        assert (cut.picture.channels == kept).all()
        assert min(height / 40, width / 50) >= 0.35


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_so_does_a_copy_of_a_volume(seed):
    rng = np.random.default_rng(seed)
    case = volume(rng)
    for cut in trimmed(Cases(NAMES, volumes=(case,)), 2, rng).volumes:
        inside = are_inside(cut)
        assert inside.any()
        assert not inside.all()
        assert (cut.landmarks_mm == case.landmarks_mm).all()
        at = cut.volume.index_to_world(np.zeros(3))
        x, y, z = np.rint(case.volume.world_to_index(at)).astype(int)
        d, h, w = cut.volume.voxels.shape
        kept = case.volume.voxels[z : z + d, y : y + h, x : x + w]
        assert (cut.volume.voxels == kept).all()


def test_what_nobody_marked_stays_unknown_and_equal_seeds_cut_alike():
    case = picture(np.random.default_rng(5))
    case.landmarks_mm[2] = np.nan
    cases = Cases(NAMES, pictures=(case,))
    one, other = (trimmed(cases, 4, np.random.default_rng(8)) for _ in range(2))
    assert len(one) == 4
    assert one.digest() == other.digest()
    assert all(np.isnan(cut.landmarks_mm[2]).all() for cut in one.pictures)
    assert len(joined(cases, one)) == 5


def test_the_only_landmark_can_be_lost_too():
    case = picture(np.random.default_rng(5), marks=1)
    cut = trimmed(Cases(("a",), pictures=(case,)), 8, np.random.default_rng(1))
    assert len(cut)
    assert not any(are_inside(each).any() for each in cut.pictures)

"""Structure: much the same in any contrast, exactly the same inverted, nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from site_client.imaging.case_sets import Cases
from site_client.imaging.dataset import Case
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.planar import Picture
from site_client.imaging.structure import structure, structured
from site_client.imaging.volumes import Volume

SHAPES = st.one_of(
    npst.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=24),
    npst.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=12),
)
IMAGES = SHAPES.flatmap(lambda shape: npst.arrays(np.uint8, shape))


def tissues(seed, dim):
    """Blobs of four greys with soft borders, as an anatomy has them; uint8."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(40,) * dim), 4)
    ranks = np.digitize(smooth, np.quantile(smooth, (0.25, 0.5, 0.75)))
    greys = rng.permutation(np.array([30, 90, 150, 210]))[ranks]
    return np.rint(ndimage.gaussian_filter(greys.astype(float), 0.7)).astype(np.uint8)


@given(IMAGES)
def test_inverted_greys_have_the_same_structure(image):
    np.testing.assert_array_equal(structure(255 - image), structure(image))


@given(IMAGES, st.integers(0, 255))
def test_brighter_greys_have_the_same_structure(image, brighter):
    image = image // 2
    np.testing.assert_array_equal(structure(image + np.uint8(brighter // 2)), structure(image))


@given(SHAPES, st.integers(0, 255))
def test_where_nothing_is_there_is_no_structure(shape, grey):
    assert not structure(np.full(shape, grey, np.uint8)).any()


@given(IMAGES)
def test_shape_and_type_stay_and_the_image_does_too(image):
    before = image.copy()
    shown = structure(image)
    assert (shown.dtype, shown.shape) == (np.uint8, image.shape)
    np.testing.assert_array_equal(image, before)


@given(IMAGES)
def test_turned_and_mirrored_images_have_turned_and_mirrored_structure(image):
    np.testing.assert_array_equal(structure(image.T.copy()), structure(image).T)
    np.testing.assert_array_equal(structure(image[::-1].copy()), structure(image)[::-1])


@pytest.mark.parametrize("dim", [2, 3])
@given(seed=st.integers(0, 10_000), drawn=st.data())
def test_monotone_curves_leave_most_of_the_structure(dim, seed, drawn):
    image = tissues(seed, dim)
    # Steps between half and twice the straight line's: one-to-one but for the rounding.
    steps = drawn.draw(npst.arrays(np.float64, 5, elements=st.floats(0.5, 2.0)))
    greys = np.concatenate([[0], np.cumsum(steps)])
    curve = np.interp(np.arange(256), np.linspace(0, 255, 6), 255 * greys / greys[-1])
    if drawn.draw(st.booleans()):
        curve = 255 - curve
    other = np.rint(curve).astype(np.uint8)[image]
    alike = np.corrcoef(structure(other).ravel(), structure(image).ravel())[0, 1]
    assert alike > 0.8


def test_cases_keep_what_is_known_of_them():
    image = tissues(0, 3)
    volume = Volume(image, 1.0, (1.0, 2.0, 3.0), np.eye(3))
    case = Case("a", volume, np.full((2, 3), 5.0))
    flat = np.stack([image[0], 255 - image[1]])
    picture = Picture(flat, 0.5, np.ones(2), np.zeros(3), np.eye(3, 2))
    drawn = PictureCase("b", "b", picture, np.full((2, 2), 5.0))
    (shown,) = structured(Cases(("x", "y"), volumes=(case,))).volumes
    np.testing.assert_array_equal(shown.volume.voxels, structure(image))
    assert shown.volume.origin_mm == volume.origin_mm
    assert shown.landmarks_mm is case.landmarks_mm
    (shown,) = structured(Cases(("x", "y"), pictures=(drawn,))).pictures
    # Each channel by itself.
    for channel, before in zip(shown.picture.channels, flat, strict=True):
        np.testing.assert_array_equal(channel, structure(before))
    assert shown.landmarks_mm is drawn.landmarks_mm

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from common.errors import InputDataError
from site_client.imaging.pyramids import Raster, build_pyramids
from site_client.imaging.sampling import sample_2d, sample_3d


def noise(*shape, seed=3):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def raster(pixels, spacing=1.0):
    d = pixels.ndim - 1
    return Raster(pixels, (spacing,) * d, np.eye(d))


def turned(degrees, stride):
    c, s = np.cos(np.deg2rad(degrees)) * stride, np.sin(np.deg2rad(degrees)) * stride
    return np.array([[c, s], [-s, c]])


def one_2d(images, origin, axes, gamma=1.0, roi=7, case=0):
    return sample_2d(
        images, np.array([case]), np.array([[origin]], float), axes[None, None], np.array([gamma]),
        roi,
    )[0, 0]  # fmt: skip


def one_3d(images, origin, axes, shape=(5, 7), *, nearest=False, case=0):
    return sample_3d(
        images, np.array([case]), np.array([[origin]], float), axes[None, None], np.ones(1), shape,
        nearest=nearest,
    )[0, 0]  # fmt: skip


@pytest.mark.parametrize("degrees", [0, 33, -120])
@pytest.mark.parametrize("stride", [0.4, 1.0, 1.7])
def test_squares_equal_scipys_linear_interpolation(degrees, stride):
    pixels = noise(2, 15, 19)
    images = build_pyramids([raster(noise(2, 30, 8, seed=1)), raster(pixels)])
    axes = turned(degrees, stride)
    cut = one_2d(images, (7.3, 8.6), axes, case=1)
    rows, columns = np.meshgrid(np.arange(7) - 3, np.arange(7) - 3, indexing="ij")
    points = np.array([7.3, 8.6]) + rows[..., None] * axes[1] + columns[..., None] * axes[0]
    x, y = np.moveaxis(points, -1, 0)
    inside = ((points >= 0) & (points <= (18, 14))).all(axis=-1)
    assert inside.any()
    for channel in range(2):
        wanted = map_coordinates(pixels[channel].astype(float), [y, x], order=1)
        np.testing.assert_allclose(cut[channel][inside], wanted[inside], atol=0.51)
        assert (cut[channel][~inside] == 0).all()


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -35, 50)], ids=["straight", "slanted"])
@pytest.mark.parametrize("stride", [0.5, 1.6])
@pytest.mark.parametrize("nearest", [False, True])
def test_cubes_equal_scipys_interpolation(angles, stride, nearest):
    pixels = noise(2, 11, 13, 17)
    images = build_pyramids([raster(noise(2, 9, 8, 7, seed=1)), raster(pixels)])
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * stride
    origin = np.array([4.37, 5.6, 4.83])
    cut = one_3d(images, origin, axes, nearest=nearest, case=1)
    d, r, s = np.meshgrid(np.arange(5) - 2, np.arange(7) - 3, np.arange(7) - 3, indexing="ij")
    points = origin + d[..., None] * axes[2] + r[..., None] * axes[1] + s[..., None] * axes[0]
    x, y, z = np.moveaxis(points, -1, 0)
    inside = ((points >= 0) & (points <= (16, 12, 10))).all(axis=-1)
    for channel in range(2):
        if nearest:
            z0, y0, x0 = (np.floor(np.clip(v, 0, None) + 0.5).astype(int) for v in (z, y, x))
            wanted = pixels[channel][np.minimum(z0, 10), np.minimum(y0, 12), np.minimum(x0, 16)]
        else:
            wanted = map_coordinates(pixels[channel].astype(float), [z, y, x], order=1)
        np.testing.assert_allclose(cut[channel][inside], wanted[inside], atol=0.51)
        assert (cut[channel][~inside] == 0).all()


def test_a_large_stride_sees_means_instead_of_single_pixels():
    images = build_pyramids([raster(noise(1, 256, 256))])
    seen = one_2d(images, (127.5, 127.5), turned(0, 16), roi=9)
    assert seen.std() < 6
    assert abs(seen.mean() - 127.5) < 3
    board = np.indices((64, 64, 64)).sum(axis=0) % 2 * 255
    volumes = build_pyramids([raster(board[None].astype(np.uint8))])
    cube = one_3d(volumes, (31.5, 31.5, 31.5), np.eye(3) * 4, (7, 7))
    assert np.abs(cube.astype(int) - 127.5).max() < 2


def test_a_gradient_looks_the_same_on_every_level_of_the_pyramid():
    x = np.linspace(0, 255, 160)
    pixels = np.rint(np.tile(x, (160, 1))).astype(np.uint8)[None]
    images = build_pyramids([raster(pixels)])
    for stride in (1, 2, 4, 8, 15):
        seen = one_2d(images, (80, 80), turned(0, stride), roi=5)[0, 2]
        np.testing.assert_allclose(seen, x[80 + np.arange(-2, 3) * stride], atol=3)


@pytest.mark.parametrize("size", [64, 65, 67])
def test_pooling_away_what_no_stride_sees_moves_nothing(size):
    y, x = np.indices((size, size))
    pixels = (255 * np.exp(-((x - 40) ** 2 + (y - 20) ** 2) / 60)).astype(np.uint8)[None]
    native = np.array([[[40.0, 20.0]]]) - (size - 1) / 2
    case = np.zeros(1, np.int64)
    for finest in (0.0, 2.0, 4.0):
        images = build_pyramids([raster(pixels)], finest_mm=finest)
        index = images.index(native, case)
        step = images.index_steps(2 * np.eye(2)[None, None], case)
        seen = sample_2d(images, case, index, step, np.ones(1), 15)[0, 0, 0].astype(float)
        weights = seen / seen.sum()
        middle = [(weights.sum(axis=a) * (np.arange(15) - 7)).sum() for a in (0, 1)]
        np.testing.assert_allclose(middle, 0, atol=0.1)
        fractions = images.fractions(native, case)[0, 0]
        np.testing.assert_allclose(fractions * (size - 1), (40, 20), atol=1e-9)
        np.testing.assert_allclose(images.at_fractions(fractions[None], case), native[0])
    assert images.pixels.size < pixels.size / 8


def test_gamma_darkens_and_keeps_the_ends():
    images = build_pyramids([raster(noise(1, 20, 20))])
    plain = one_2d(images, (10, 10), np.eye(2), roi=9)
    dark = one_2d(images, (10, 10), np.eye(2), gamma=2.0, roi=9)
    np.testing.assert_array_equal(dark, np.floor(255 * (plain / 255) ** 2 + 0.5))


def test_spacing_and_direction_are_respected():
    direction = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    image = Raster(noise(1, 6, 7, 8), (1.0, 2.0, 4.0), direction)
    images = build_pyramids([image])
    case = np.zeros(1, np.int64)
    index = images.index(np.array([[[-4.0, 1.0, 8.0]]]), case)[0, 0]
    # Along the image's x is the world's y, along its y the world's -x.
    np.testing.assert_allclose(index, (4.5, 5.0, 4.5))
    step = images.index_steps(np.array([[[0.0, 1.0, 0.0]]]), case)[0, 0]
    np.testing.assert_allclose(step, (1, 0, 0), atol=1e-12)


def test_a_subset_shares_its_pixels():
    images = build_pyramids([raster(noise(1, 20 + k, 20, seed=k)) for k in range(3)])
    some = images.subset(np.array([2, 0]))
    assert some.pixels is images.pixels
    np.testing.assert_array_equal(
        one_2d(some, (9, 9), np.eye(2), case=0), one_2d(images, (9, 9), np.eye(2), case=2)
    )


def test_images_beyond_the_ceiling_are_refused():
    with pytest.raises(InputDataError, match="do not fit into memory"):
        build_pyramids((raster(noise(1, 512, 512)) for _ in range(5)), limit_mib=1)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "at least one"),
        ([raster(np.zeros((1, 9, 9)))], "uint8"),
        ([raster(noise(1, 9, 1))], "2 pixels"),
        ([raster(noise(1, 9, 9)), raster(noise(2, 9, 9))], "1 channels"),
        ([raster(noise(1, 9, 9)), raster(noise(1, 9, 9, 9))], "2 dimensions"),
        ([raster(noise(1, 9, 9), spacing=np.nan)], "positive"),
        ([Raster(noise(1, 9, 9), (1.0, 1.0), np.eye(3))], "2 x 2"),
    ],
)
def test_what_cannot_be_sampled_is_refused(images, words):
    with pytest.raises(InputDataError, match=words):
        build_pyramids(images)

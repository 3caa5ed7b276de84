from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from site_client.imaging.crops import triplanar_crops


@pytest.fixture
def volumes():
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, shape).astype(np.uint8) for shape in ((11, 13, 17), (9, 21, 8))]


def crop(volumes, case, centre, axes, gamma=1.0, roi=7):
    sizes = np.array([v.shape[::-1] for v in volumes])
    starts = np.array([0, volumes[0].size])
    flat = np.concatenate([v.ravel() for v in volumes])
    return triplanar_crops(
        flat,
        starts,
        sizes,
        np.array([case]),
        np.array([centre], dtype=float),
        np.array([axes], dtype=float),
        np.array([gamma]),
        roi,
    )[0]


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -35, 50)], ids=["straight", "slanted"])
@pytest.mark.parametrize("stride", [0.5, 2.0])
def test_crops_equal_scipys_linear_interpolation(volumes, case, angles, stride):
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * stride
    centre = np.array([4.3, 5.6, 4.9])
    crops = crop(volumes, case, centre, axes)
    offsets = np.arange(7) - 3
    volume = volumes[case].astype(float)
    for plane, (u, w) in enumerate([(1, 2), (0, 2), (0, 1)]):
        rows, columns = np.meshgrid(offsets, offsets, indexing="ij")
        points = centre + rows[..., None] * axes[w] + columns[..., None] * axes[u]
        x, y, z = np.moveaxis(points, -1, 0)
        wanted = map_coordinates(volume, [z, y, x], order=1, mode="constant", cval=0)
        # Where scipy fades out beyond the border voxels, we say 0.
        size = np.array(volume.shape[::-1])
        inside = ((points >= 0) & (points <= size - 1)).all(axis=-1)
        np.testing.assert_allclose(crops[plane][inside], wanted[inside], atol=0.51)
        assert (crops[plane][~inside] == 0).all()


def test_whole_voxels_are_copied_exactly(volumes):
    crops = crop(volumes, 0, (8, 6, 5), np.eye(3), roi=5)
    volume = volumes[0]
    np.testing.assert_array_equal(crops[0], volume[3:8, 4:9, 8])
    np.testing.assert_array_equal(crops[1], volume[3:8, 6, 6:11])
    np.testing.assert_array_equal(crops[2], volume[5, 4:9, 6:11])


def test_the_outermost_voxels_can_be_seen(volumes):
    crops = crop(volumes, 1, (7, 20, 8), np.eye(3), roi=3)
    assert crops[2][1, 1] == volumes[1][8, 20, 7]
    assert crops[2][2, 2] == 0


def test_gamma_darkens_and_keeps_the_ends(volumes):
    plain = crop(volumes, 0, (8, 6, 5), np.eye(3), roi=9)
    dark = crop(volumes, 0, (8, 6, 5), np.eye(3), gamma=2.0, roi=9)
    np.testing.assert_array_equal(dark, np.floor(255 * (plain / 255) ** 2 + 0.5))

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from site_client.imaging.synthesis import Deformation, Grid, random_bend, read_raw

CENTRE = np.array([3.0, -10.0, 20.0])


def deformation(seed=1, bend_mm=7.0):
    affine = Rotation.from_euler("xyz", [8, -5, 11], degrees=True).as_matrix() * 1.1
    bend = random_bend(np.random.default_rng(seed), 240.0, bend_mm)
    return Deformation(affine, CENTRE, np.array([-14.0, 22.0, 5.0]), bend)


def test_there_and_back_is_where_one_was():
    points = np.random.default_rng(0).uniform(-70, 70, (20, 3))
    there = deformation().to_subject(points)
    np.testing.assert_allclose(deformation().to_template(there), points, atol=1e-3)
    assert np.linalg.norm(there - points, axis=1).min() > 1


def test_without_bend_the_centre_goes_where_it_was_sent():
    still = deformation(bend_mm=0.0)
    np.testing.assert_allclose(still.to_subject(CENTRE[None]), [[-14.0, 22.0, 5.0]], atol=1e-6)


def test_the_longest_displacement_is_as_asked():
    bend = random_bend(np.random.default_rng(2), 240.0, 6.0)
    assert np.linalg.norm(bend, axis=-1).max() == pytest.approx(6.0)
    # Smooth: neighbours 8 mm apart differ by much less than their distance.
    assert np.abs(np.diff(bend, axis=0)).max() < 3.0


def test_a_blob_lands_where_its_landmark_does(write_blob):
    truth = np.array([12.0, 4.0, 28.0])
    template = read_raw(
        write_blob("template.mha", truth, size=(60, 60, 60), centre_mm=CENTRE, sigma_mm=3.0)
    )
    warp = deformation()
    landmark = warp.to_subject(truth[None])[0]
    origin = np.rint(landmark - 25.0)
    head = warp.warp(template, Grid((50, 50, 50), (1.0, 1.0, 1.0), tuple(origin), np.eye(3)))
    z, y, x = (np.argwhere(head > 0.5 * head.max())).mean(axis=0)
    found = origin + np.array([x, y, z])
    assert np.linalg.norm(found - landmark) < 0.5

from __future__ import annotations

import hashlib
import importlib.util

import numpy as np
import pytest

from common.settings import TaskSettings
from deploy.demo.data import (
    AFIDS_RAS_MM,
    PROTOCOLS,
    draw_deformation,
    draw_grid,
    held_out_subjects,
    template_path,
    write_demo_data,
    write_hospitals,
)
from site_client.imaging.dataset import load_cases
from site_client.imaging.synthesis import Grid, RawImage, read_raw

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nilearn") is None, reason="nilearn's template is not installed"
)


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def template():
    return read_raw(template_path())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, write_demo_data(folder, seed=4, sites=2, subjects_per_site=1, heldout=3)


def test_the_same_seed_writes_the_same_bytes_and_sites_do_not_depend_on_each_other(small, tmp_path):
    folder, _ = small
    write_demo_data(tmp_path, seed=4, sites=1, subjects_per_site=1, heldout=1)
    again, before = digests(tmp_path), digests(folder)
    assert len(again) == 4
    assert again.items() <= before.items()
    write_demo_data(tmp_path / "other", seed=5, sites=1, subjects_per_site=1, heldout=0)
    assert not set(digests(tmp_path / "other").values()) & set(before.values())


def test_every_subject_can_be_loaded_with_every_landmark(small):
    _, data = small
    task = TaskSettings(landmarks=data.landmarks, spacing_mm=2.0)
    counts = [len(load_cases(folder, task)) for folder in (*data.sites, data.heldout)]
    assert counts == [1, 1, 3]


def test_a_hospital_has_its_own_subjects_and_its_share_of_the_held_out_ones(small, tmp_path):
    _, data = small
    write_hospitals(data, tmp_path)
    task = TaskSettings(landmarks=data.landmarks, spacing_mm=2.0)
    names = [[case.name for case in load_cases(tmp_path / s.name, task)] for s in data.sites]
    assert [[name.split("_")[0] for name in each] for each in names] == [
        ["sub-101", "sub-h01", "sub-h03"],
        ["sub-201", "sub-h02"],
    ]
    assert (
        digests(tmp_path).items()
        <= {
            f"{site.name}/{path}": digest
            for site in data.sites
            for folder in (site, data.heldout)
            for path, digest in digests(folder).items()
        }.items()
    )


def test_every_held_out_subject_of_the_demonstration_is_at_one_hospital_of_its_protocol():
    each = [held_out_subjects(place) for place in range(3)]
    assert sorted(sum(each, ())) == [f"sub-h{n:02d}" for n in range(1, 7)]
    assert each[1] == ("sub-h02", "sub-h05")


def test_held_out_subjects_are_trained_on_nowhere_and_show_every_protocol(small):
    _, data = small
    held = {p.name for p in data.heldout.glob("sub-*")}
    assert not held & {p.name for site in data.sites for p in site.glob("sub-*")}
    suffixes = {p.name.split("_")[1] for p in data.heldout.rglob("*.nii.gz")}
    assert suffixes == {f"{protocol.suffix}.nii.gz" for protocol in PROTOCOLS}


def test_the_tissues_at_the_landmarks_are_the_templates(template):
    """A shifted or mirrored landmark set would not sit on white matter beside fluid."""
    grid = template.grid
    values = {}
    for name, ras in AFIDS_RAS_MM.items():
        world = np.array(ras) * (-1, -1, 1)
        index = (world - grid.origin_mm) @ grid.direction / grid.spacing_mm
        x, y, z = np.rint(index).astype(int)
        values[name] = template.voxels[z - 3 : z + 4, y - 3 : y + 4, x - 3 : x + 4]
    voxel = (np.array(AFIDS_RAS_MM["AC"]) * (-1, -1, 1) - grid.origin_mm) @ grid.direction
    np.testing.assert_allclose(voxel, [97.88, 136.55, 67.18], atol=0.01)
    for name in ("AC", "PC", "genu of CC", "splenium of CC"):
        assert values[name].max() > 190, name
        assert values[name].min() < 150, name


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("landmark", ["AC", "PMJ"])
def test_a_blob_at_a_landmark_is_found_where_the_landmark_went(template, number, landmark):
    rng = np.random.default_rng(number)
    truth = np.array(AFIDS_RAS_MM[landmark]) * (-1, -1, 1)
    size = 61
    origin = truth - (size - 1) / 2
    offsets = np.stack(np.meshgrid(*[np.arange(size) - 30.0] * 3, indexing="ij"), axis=-1)
    blob = (250 * np.exp(-(offsets**2).sum(axis=-1) / 18)).astype(np.float32)
    marked = RawImage(blob, Grid((size,) * 3, (1.0,) * 3, tuple(origin), np.eye(3)))
    deformation = draw_deformation(rng, template)
    grid = draw_grid(rng, PROTOCOLS[number], template, deformation)
    head = deformation.warp(marked, grid)
    z, y, x = np.argwhere(head > 100).mean(axis=0)
    found = np.array(grid.origin_mm) + grid.direction @ (np.array([x, y, z]) * grid.spacing_mm)
    wanted = deformation.to_subject(truth[None])[0]
    assert np.linalg.norm(found - wanted) < 0.5
    assert np.linalg.norm(wanted - truth) > 3

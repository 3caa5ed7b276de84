"""rl-medical's single-agent brain model on its ten public scans, through our own search.

Set ``CAIRN_RL_MEDICAL`` to the ``data`` folder of an rl-medical checkout (it holds
``filenames``, ``images``, ``landmarks`` and ``models/BrainMRI/SingleAgent.pt``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from site_client.agent.import_weights import (
    LADDER,
    SEARCH,
    as_rl_medical_saw,
    import_rl_medical,
    in_the_world,
    onto_voxels,
)
from site_client.agent.network import set_weights
from site_client.agent.networks import build_network, fastest
from site_client.agent.search import greedy_search
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.views import Views
from site_client.imaging.dataset import Case
from site_client.imaging.volumes import Volume

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LANDMARK = 13
ITS_OWN_ERROR_MM = 1.01


@pytest.fixture(scope="module")
def folder() -> Path:
    named = os.environ.get("CAIRN_RL_MEDICAL")
    if not named:
        pytest.skip("CAIRN_RL_MEDICAL names no folder with rl-medical's data")
    return Path(named)


def listed(folder: Path, name: str) -> list[Path]:
    lines = (folder / "filenames" / name).read_text(encoding="utf-8").split()
    return [folder.parent / line for line in lines]


def read_case(image: Path, landmarks: Path) -> Case:
    """A scan as rl-medical prepares it: clipped at the 10th and 99th percentile, 0 to 255."""
    scan = sitk.DICOMOrient(sitk.ReadImage(str(image), sitk.sitkFloat32), "LPS")
    values = sitk.GetArrayFromImage(scan)
    low, high = np.percentile(values, (10, 99))
    voxels = np.rint((np.clip(values, low, high) - low) * (255 / (high - low))).astype(np.uint8)
    index = np.loadtxt(landmarks, delimiter=",")[LANDMARK]
    original = sitk.ReadImage(str(image))
    place = original.TransformContinuousIndexToPhysicalPoint(index.tolist())
    volume = Volume(voxels, 1.0, scan.GetOrigin(), np.eye(3))
    return Case("scan", volume, np.array([place]))


@pytest.fixture(scope="module")
def cases(folder: Path) -> list[Case]:
    pairs = zip(
        listed(folder, "image_files.txt"), listed(folder, "landmark_files.txt"), strict=True
    )
    return [read_case(image, landmarks) for image, landmarks in pairs]


def test_the_single_agent_brain_model_errs_by_about_a_millimetre_through_our_search(
    folder, cases, capsys
):
    torch.set_num_threads(1)
    imported = import_rl_medical(folder / "models" / "BrainMRI" / "SingleAgent.pt")
    views = Views.history(imported.frames)
    task = Landmark3D(as_rl_medical_saw(build_cases_3d(cases)), LADDER, views, nearest=True)
    network = build_network(imported.settings, task, torch.Generator(), fastest())
    set_weights(network, imported.weights)
    at = task.starts(np.random.Generator(np.random.PCG64(0)), 2, posed=False)
    onto_voxels(task, at)
    begun = task.errors(at).mean()
    found = greedy_search(task, network, at, SEARCH)
    errors = task.errors(found)
    truth = np.concatenate([case.landmarks_mm for case in cases])[found["case"]]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(errors)} searches from {begun:.0f} mm away end at {errors.mean():.2f} "
            f"± {errors.std(ddof=1):.2f} mm, worst {errors.max():.2f}\n"
        )
    assert np.allclose(np.linalg.norm(in_the_world(task, found) - truth, axis=1), errors, atol=1e-3)
    assert begun > 40
    assert abs(errors.mean() - ITS_OWN_ERROR_MM) < 0.35
    assert errors.max() < 5

"""What a hospital would otherwise use, on the same images: SimpleITK's registration.

Mattes' mutual information, regular-step gradient descent over three resolutions, as
its documentation shows for images of two modalities, on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from site_client.agent.task import Situations
from site_client.agent.tasks.poses import rotations
from site_client.agent.tasks.registration import PairCase
from site_client.imaging.pyramids import Raster

_SEED = 1


def register_by_mutual_information(
    pairs: Sequence[PairCase], at: Situations
) -> dict[str, NDArray[np.float64]]:
    """Register each pair under the true motion of its native situation.

    Returns:
        ``tre_mm`` and ``rotation_deg``, float64[n], as `Registration.report` defines them.
    """
    errors, angles = [], []
    for row in at:
        pair = pairs[int(row["case"])]
        turn = rotations(row["truth"][None, 3:])[0]
        shift = row["truth"][:3].astype(np.float64)
        found_turn, found_shift = _register(
            _image(pair.fixed, np.zeros(3), np.eye(3), np.zeros(3)),
            _image(pair.moving, pair.moving_middle_mm, turn, shift),
        )
        gap = pair.points_mm @ (found_turn - turn).T + found_shift - shift
        errors.append(np.linalg.norm(gap, axis=1).mean())
        half = min(1.0, float(np.linalg.norm(found_turn - turn)) / np.sqrt(8))
        angles.append(np.rad2deg(2 * np.arcsin(half)))
    return {"tre_mm": np.array(errors), "rotation_deg": np.array(angles)}


def _image(
    raster: Raster,
    middle_mm: NDArray[np.float64],
    turn: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> sitk.Image:
    """An image whose header puts it where a motion has moved it; no voxel is interpolated."""
    image = sitk.GetImageFromArray(raster.pixels[0].astype(np.float32))
    spacing = np.array(raster.spacing_mm)
    half = raster.direction @ ((np.array(raster.pixels.shape[:0:-1]) - 1) / 2 * spacing)
    image.SetSpacing([float(v) for v in spacing])
    image.SetDirection((turn @ raster.direction).ravel().tolist())
    image.SetOrigin((turn @ (middle_mm - half) + shift).tolist())
    return image


def _register(
    fixed: sitk.Image, moving: sitk.Image
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R, t): where points of the fixed image lie in the moving one, about the origin."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    # Some 10,000 to 30,000 samples at every resolution.
    method.SetMetricSamplingPercentagePerLevel([0.5, 0.2, 0.03], _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=200, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4.0, 2.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    # Both middles are at the origin before the motion: the same start as the agent's.
    method.SetInitialTransform(sitk.Euler3DTransform(), inPlace=True)
    found = sitk.Euler3DTransform(method.Execute(fixed, moving))
    turn = np.array(found.GetMatrix()).reshape(3, 3)
    centre = np.array(found.GetCenter())
    return turn, np.array(found.GetTranslation()) + centre - turn @ centre

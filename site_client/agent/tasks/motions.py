"""Rigid motions in millimetres of the patient: what a registration finds, as people use it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from site_client.agent.tasks.poses import rotations


@dataclass(frozen=True, eq=False)
class Motion:
    """The map from points of the fixed image to the moving one: ``R (x - centre) + centre + t``.

    Attributes:
        rotation: float64[d, d].
        translation_mm: float64[d].
        centre_mm: float64[d], the fixed image's middle: in volumes LPS mm, in pictures mm
            from the middle of the first pixel (of the fixed, and so of the moving picture).
    """

    rotation: NDArray[np.float64]
    translation_mm: NDArray[np.float64]
    centre_mm: NDArray[np.float64]

    @staticmethod
    def found(
        parameters: NDArray[np.floating],
        centre_mm: NDArray[np.float64],
        shift_mm: NDArray[np.float64] | float = 0.0,
    ) -> Motion:
        """Turn what a search found into millimetres of the patient.

        Args:
            parameters: float[3 or 6], translation (mm), then rotation (degrees), of a
                situation as acquired.
            centre_mm: float64[d], the middle of the fixed image.
            shift_mm: float64[d], what the start has moved the moving image by.
        """
        d = len(centre_mm)
        translation = parameters[:d].astype(np.float64) + shift_mm
        return Motion(rotations(parameters[None, d:])[0], translation, centre_mm)

    def of(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move points float64[n, d] of the fixed image to where they lie in the moving one."""
        turned = (points_mm - self.centre_mm) @ self.rotation.T
        return np.asarray(turned + self.centre_mm + self.translation_mm)

    @property
    def angle_deg(self) -> float:
        """Give the angle by which it turns."""
        half = np.linalg.norm(self.rotation - np.eye(len(self.rotation))) / np.sqrt(8)
        return float(np.rad2deg(2 * np.arcsin(min(half, 1.0))))

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        return {
            "rotation": np.round(self.rotation, 8).tolist(),
            "translation_mm": np.round(self.translation_mm, 4).tolist(),
            "centre_mm": np.round(self.centre_mm, 4).tolist(),
        }

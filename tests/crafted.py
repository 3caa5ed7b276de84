"""What a lying aggregator would order: weights that carry pictures into the update.

Convolutions that copy pixels, and slopes of the size of Adam's epsilon. For tests that
show that an attack is real, so that its absence means something.
"""

from __future__ import annotations

import numpy as np

from common.model import weight_shapes
from common.plan import FederationPlan, parse_plan
from site_client.imaging.dataset import Case
from site_client.imaging.volumes import Volume


def crafted_plan(*, batch: int, roi: int = 25, learning_rate: float = 1e-3) -> FederationPlan:
    """One update, of so few or so many transitions, at a scale that shows detail."""
    return parse_plan(
        {
            "name": "harmless-study",
            "seed": 1,
            "task": {"landmarks": ["A", "B"], "spacing_mm": 2.0, "roi": roi},
            "ladder": {"scales": [1.0], "steps_mm": [2.0]},
            "network": {"width": 64},
            "learner": {
                "searches": 16,
                "episode_steps": 2,
                "updates": 1,
                "batch": batch,
                "learning_rate": learning_rate,
                "gamma": 0.0,
                "warm_start": 1.0,
                "warmup": 120,
                "gradient_clip": 1e9,
            },
            "pose": {
                "rotation_deg": 0.0,
                "scale_fraction": 0.0,
                "shift_mm": 0.0,
                "gamma_contrast": 0.0,
            },
            "experience": {"rows": 1, "columns": 16},
            "rounds": {"training": 1},
        }
    )


def copying_convolutions(plan: FederationPlan, *, packed: bool) -> dict[str, np.ndarray]:
    """Zero weights but for convolutions of width 64 that copy two cuts into the features.

    Args:
        plan: of width 64.
        packed: the third cut, too, below the last bit of the second.
    """
    made = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(plan).items()}
    quad = [(dy, dx) for dy in (0, 1) for dx in (0, 1)]
    for inner, middle, channels in (("conv1", 2, 3), ("conv2", 1, 12)):
        for channel in range(channels):
            for k, (dy, dx) in enumerate(quad):
                made[f"{inner}.weight"][channel * 4 + k, channel, middle + dy, middle + dx] = 1
    for channel in range(16):
        for k, (dy, dx) in enumerate(quad):
            kernels = made["conv3.weight"][:, :, 1 + dy, 1 + dx]
            kernels[channel * 4 + k, channel] = 1
            kernels[64 + channel * 4 + k, 16 + channel] = 1
            if packed:
                kernels[64 + channel * 4 + k, 32 + channel] = 1 / 256
    return made


def small_slopes(made: dict[str, np.ndarray]) -> None:
    """Values so far from any reward that the loss's slope is 1, and gradients of Adam's epsilon."""
    made["heads.bias"][:] = 100.0
    made["heads.weight"][:, 0] = 1e-8
    made["fc2.bias"][0] = 1.0


def slices_weights(plan: FederationPlan) -> dict[str, np.ndarray]:
    """Every neuron fires, and its gradient is the picture."""
    made = copying_convolutions(plan, packed=True)
    small_slopes(made)
    made["fc1.bias"][:] = 1.0
    made["fc2.weight"][0, :] = np.geomspace(0.05, 20, 256)
    return made


def imprint_weights(plan: FederationPlan, brightness: np.ndarray) -> dict[str, np.ndarray]:
    """Neuron i fires if the mean brightness of two cuts exceeds ``brightness[i]``, 0..1."""
    made = copying_convolutions(plan, packed=False)
    small_slopes(made)
    made["fc2.weight"][0, :] = 1.0
    features = made["fc1.weight"].shape[1] - plan.space.levels
    made["fc1.weight"][:, :features] = 1 / (2 * plan.task.roi**2)
    made["fc1.bias"][:] = -brightness
    return made


def textured_cases(count: int, side: int = 44, seed: int = 0) -> list[Case]:
    """Volumes whose every cut shows something: bright and dark lumps of a few voxels."""
    from scipy.ndimage import gaussian_filter

    rng, made = np.random.default_rng(seed), []
    for k in range(count):
        fine, coarse = (gaussian_filter(rng.normal(size=(side,) * 3), s) for s in (1.5, 8.0))
        lumps = fine / fine.std() + 0.7 * coarse / coarse.std()
        voxels = np.clip(120 + 45 * lumps, 0, 255).astype(np.uint8)
        volume = Volume(voxels, 2.0, (0.0, 0.0, 0.0), np.eye(3))
        points = rng.uniform(0.35, 0.65, (2, 3)) * side
        made.append(Case(f"case-{k}", volume, volume.index_to_world(points)))
    return made

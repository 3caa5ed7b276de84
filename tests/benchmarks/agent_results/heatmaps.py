"""A heatmap baseline: two small U-Nets on the images, poses and searches that the agents have.

The first sees the whole image and says for each landmark where it is most likely; the second
sees a crop around that place, finely. Each is trained by the cross-entropy between its map and
a Gaussian around the landmark, on all landmarks that the view shows. What they find is measured
as what agents find is: the same held-out cases, under the same random poses.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from common.settings import EvaluationSettings
from site_client.agent.evaluation import Searched
from site_client.agent.network import to_tensors, use_deterministic_torch
from site_client.agent.task import Situations, Task
from site_client.agent.tasks.points import PointSearch
from site_client.agent.tasks.poses import Poses

_SIGMA = 1.5  # of the Gaussian, samples
_WINDOW = 3  # samples on either side of the maximum that decide the place
_CHUNK = 32


class UNet(nn.Module):
    """Three halvings and back, with what was seen on the way down; one map for each landmark."""

    def __init__(self, dim: int, channels: int, heads: int, width: int) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dim]
        self._pool = {2: functional.max_pool2d, 3: functional.max_pool3d}[dim]
        sizes = [width, 2 * width, 4 * width, 4 * width]

        def block(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for size in (inputs, outputs):
                layers += [
                    convolution(size, outputs, 3, padding=1, bias=False),
                    nn.GroupNorm(4, outputs),
                    nn.ReLU(),
                ]
            return nn.Sequential(*layers)

        self.down = nn.ModuleList(
            block(i, o) for i, o in zip([channels, *sizes], sizes, strict=False)
        )
        self.up = nn.ModuleList(
            block(sizes[k + 1] + sizes[k], sizes[k]) for k in reversed(range(len(sizes) - 1))
        )
        self.maps = convolution(width, heads, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float32[n, heads, *grid] of float32[n, channels, *grid]: unnormalised log-likelihoods."""
        seen = []
        for k, block in enumerate(self.down):
            x = block(x if k == 0 else self._pool(x, 2))
            seen.append(x)
        for block, wider in zip(self.up, reversed(seen[:-1]), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), wider], dim=1))
        return self.maps(x)


@dataclass(frozen=True)
class Stage:
    """A view of each image, and how finely.

    Attributes:
        task: over some cases, with the poses; its second level is the stage's.
        stride_mm: between samples.
        whole: the view is around the middle of the image, and not around a guess.
    """

    task: PointSearch
    stride_mm: float
    whole: bool

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Draw training views."""
        at = self.task.draw(rng, n)
        at["level"] = 0 if self.whole else 1
        self.task.draw_positions(rng, at)
        return self.around_middle(at) if self.whole else at

    def around_middle(self, at: Situations) -> Situations:
        """The same views, around the middles of their images."""
        centred = at.copy()
        middles = np.zeros((len(at), self.task.dim))
        centred["position"] = Poses.of(at["pose"]).posed(middles)
        return centred

    def grid(self, at: Situations) -> NDArray[np.float64]:
        """float64[n, heads, d]: every landmark in samples of the view, along x, y(, z)."""
        targets = Poses.of(at["pose"]).posed(self.task.targets_mm[at["case"]])
        return (targets - at["position"][:, None]) / self.stride_mm + self.task.shape[-1] // 2


@dataclass(frozen=True)
class Heatmaps:
    """Trained U-Nets, one per stage."""

    networks: tuple[UNet, ...]
    cpu_s: float
    updates: int


def fit_heatmaps(
    stages: Sequence[Stage], updates: int, seed: int, *, width: int, batch: int = 8
) -> Heatmaps:
    """Train each stage's U-Net for so many gradient steps."""
    use_deterministic_torch()
    began, networks = time.process_time(), []
    for k, stage in enumerate(stages):
        torch.manual_seed(1000 * seed + k)
        rng = np.random.default_rng([seed, k])
        network = UNet(stage.task.dim, stage.task.shape[0], stage.task.heads, width)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, fused=True)
        for update in range(updates):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - 0.97 * update / updates)
            at = stage.draw(rng, batch)
            optimizer.zero_grad()
            _loss(network(_seen(stage, at)), stage.grid(at)).backward()
            optimizer.step()
        networks.append(network.eval())
    return Heatmaps(tuple(networks), time.process_time() - began, updates * len(stages))


def _seen(stage: Stage, at: Situations) -> Tensor:
    return to_tensors(stage.task.observe(at), at, torch.device("cpu"))[0]


def _loss(maps: Tensor, places: NDArray[np.float64]) -> Tensor:
    """Mean cross-entropy over the landmarks that lie in their view."""
    side = maps.shape[-1]
    shown = np.isfinite(places).all(axis=2) & ((places > 0) & (places < side - 1)).all(axis=2)
    if not shown.any():
        return maps.sum() * 0
    at = torch.from_numpy(places[shown]).float()
    steps = torch.arange(side)
    along = torch.exp(-((steps - at[..., None]) ** 2) / (2 * _SIGMA**2))
    along = along / along.sum(dim=-1, keepdim=True)
    likely = functional.log_softmax(maps[torch.from_numpy(shown)].flatten(1), dim=1)
    # Arrays have x last.
    wanted = along[:, -1]
    for axis in reversed(range(at.shape[1] - 1)):
        wanted = torch.einsum("n...,nk->n...k", wanted, along[:, axis])
    return -(wanted.flatten(1) * likely).sum(dim=1).mean()


@torch.no_grad()
def find(stages: Sequence[Stage], heatmaps: Heatmaps, at: Situations) -> Situations:
    """Move situations to where their landmarks are found."""
    found = at.copy()
    for stage, network in zip(stages, heatmaps.networks, strict=True):
        view = stage.around_middle(found) if stage.whole else found
        view["level"] = 0 if stage.whole else 1
        for begin in range(0, len(view), _CHUNK):
            part = view[begin : begin + _CHUNK]
            maps = network(_seen(stage, part)).numpy()
            own = maps[np.arange(len(part)), part["head"].astype(np.int64)]
            offset = (_peaks(own) - stage.task.shape[-1] // 2) * stage.stride_mm
            part["position"] += offset.astype(np.float32)
        stage.task.pull_inside(view)
        found["position"] = view["position"]
    return found


def _peaks(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64[n, d], along x, y(, z): the mean place around each map's maximum."""
    n, dim, side = len(maps), maps.ndim - 1, maps.shape[-1]
    top = np.stack(np.unravel_index(maps.reshape(n, -1).argmax(axis=1), maps.shape[1:]), axis=1)
    places = np.empty((n, dim))
    for k in range(n):
        low = np.clip(top[k] - _WINDOW, 0, side - 1)
        high = np.clip(top[k] + _WINDOW + 1, 1, side)
        window = maps[k][tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        weight = np.exp(window - window.max())
        weight /= weight.sum()
        for axis in range(dim):
            along = weight.sum(axis=tuple(other for other in range(dim) if other != axis))
            places[k, axis] = (along * np.arange(low[axis], high[axis])).sum()
    return places[:, ::-1]


def measure(
    task: Task,
    stages: Sequence[Stage],
    heatmaps: Heatmaps,
    settings: EvaluationSettings,
    seed: int,
    prior: NDArray[np.float64],
) -> dict[str, Searched]:
    """What `evaluate` would say of the same cases and poses; there is one answer, from no start.

    Args:
        task: that the agents search.
        stages: over the same cases.
        heatmaps: trained.
        settings: of the agents' evaluation.
        seed: of it.
        prior: float64[heads, d], the constant predictor.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = [task.starts(rng, settings.starts, posed=True) for _ in range(settings.poses)]
    measured = {"posed": np.concatenate(draws)}
    if settings.native:
        measured["native"] = task.starts(rng, settings.starts, posed=False)
    results = {}
    for pose, starts in measured.items():
        found = find(stages, heatmaps, starts[:: settings.starts])
        constant = found.copy()
        task.move_to(constant, prior[found["head"].astype(np.int64)].astype(np.float32))
        errors = task.errors(found)
        results[pose] = Searched(
            found[:, None], errors[:, None], found, errors, task.errors(constant), {}
        )
    return results

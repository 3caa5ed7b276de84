"""View planes in volumes: two angles and an offset.

The normal is the reference normal turned by two angles, and the offset (posed mm)
is the plane's distance from the volume's middle along it. One cut alone does not
say on which side the right plane lies; therefore a slab of three parallel cuts and
two cuts across the plane are seen. The true plane is given, or fitted to landmarks
by least squares.
Source of the parameters and of the ladder: Alansary et al., MICCAI 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import PlaneSettings, PoseSettings
from site_client.agent.task import MM, Outcome, Situations
from site_client.agent.tasks.geometry import steps_of_actions
from site_client.agent.tasks.poses import Poses, draw_poses, native_poses
from site_client.imaging.cases import raster_of
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB, Pyramids, build_pyramids
from site_client.imaging.sampling import sample_3d
from site_client.imaging.volumes import Volume

_SITUATION = np.dtype(
    [
        ("case", "<u2"),
        ("head", "u1"),
        ("level", "u1"),
        ("action", "u1"),
        ("pose", "<f2", 8),
        ("plane", "<f4", 3),
    ]
)
_MOVES = steps_of_actions(3)


@dataclass(frozen=True, eq=False)
class PlaneCase:
    """One volume and the planes looked for in it.

    Attributes:
        name: kept out of `repr` and of everything that leaves the site.
        volume: the image.
        planes_mm: float64[heads, 2, 3], a point of each plane (LPS mm) and its normal, of
            any length and sense; NaN where a plane is missing.
        landmarks_mm: float64[heads, landmarks, 3], LPS mm, points that should lie in each
            plane, for the report; NaN pads and marks missing ones.
    """

    name: str
    volume: Volume
    planes_mm: NDArray[np.float64]
    landmarks_mm: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"PlaneCase(size={self.volume.size.tolist()}, planes={len(self.planes_mm)})"


def fit_plane(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Point and unit normal, float64[2, 3], of the plane nearest to points float64[n, 3].

    The sum of squared distances to the plane is least; NaN rows are left out.

    Raises:
        InputDataError: fewer than three points, or all on one line.
    """
    present = points[np.isfinite(points).all(axis=1)]
    middle = present.mean(axis=0) if len(present) else np.zeros(3)
    if len(present) >= 3:
        _, spread, axes = np.linalg.svd(present - middle)
        if spread[1] > 1e-6 * max(spread[0], 1e-9):
            return np.stack([middle, axes[2]])
    raise InputDataError(
        "points do not define a plane",
        expected="three or more that are not on one line",
        got=f"{len(present)}",
    )


class PlaneSearch:
    """Search for view planes.

    An observation has five channels: the cuts below, in and above the plane, and the
    two cuts across it.

    Args:
        cases: volumes with their planes.
        settings: steps and views, and one reference normal for all planes or one for each.
        roi: samples along each side of a cut.
        poses: extent of the random pose.
        limit_mib: ceiling of the voxels in memory.

    Raises:
        InputDataError: nothing to look for, other planes than normals, or a plane out of the reach
            of the search.
    """

    situation = _SITUATION
    actions = len(_MOVES)
    agents = 1
    unit = MM

    def __init__(
        self,
        cases: Sequence[PlaneCase],
        settings: PlaneSettings | None = None,
        poses: PoseSettings | None = None,
        limit_mib: int = DEFAULT_LIMIT_MIB,
        *,
        roi: int = 45,
    ) -> None:
        self.settings, self.roi = settings or PlaneSettings(), roi
        self.poses = poses or PoseSettings()
        self.images: Pyramids = build_pyramids(
            (raster_of(case.volume) for case in cases), 0.0, limit_mib
        )
        middles = np.stack([case.volume.centre_mm for case in cases])[:, None]
        planes = np.stack([case.planes_mm for case in cases])
        self._points = planes[:, :, 0] - middles
        self._normals = planes[:, :, 1] / np.linalg.norm(planes[:, :, 1], axis=-1, keepdims=True)
        self._landmarks = np.stack([case.landmarks_mm for case in cases]) - middles[:, None]
        present = np.isfinite(self._points + self._normals).all(axis=2)
        self._pairs = np.argwhere(present)
        self.heads = planes.shape[1]
        if not 0 < len(cases) <= 65_535 or not 0 < self.heads <= 255 or not len(self._pairs):
            raise InputDataError(
                "nothing to search", expected="1 to 65535 cases, at least one of them with a plane"
            )
        s = self.settings
        self.levels = len(s.angles_deg)
        self.shape: tuple[int, ...] = (5, roi, roi)
        normals = (s.normal, *s.more_normals)
        if len(normals) not in (1, self.heads):
            raise InputDataError(
                "the planes do not fit their reference normals",
                field="plane.more_normals",
                expected=f"{self.heads - 1}",
                got=f"{len(s.more_normals)}",
            )
        frames = np.stack([_frame_of(np.array(normal, dtype=np.float64)) for normal in normals])
        # One normal may be that of all planes.
        self._base = np.broadcast_to(frames, (self.heads, 3, 3))
        self._steps = np.stack([s.angles_deg, s.angles_deg, s.offsets_mm], axis=1)
        self._reach = np.array([s.reach_deg, s.reach_deg, s.reach_mm])
        self._strides = np.array(s.strides_mm)
        # Makes millimetres of the parameters.
        self._weights = np.array([np.deg2rad(1) * s.lever_mm] * 2 + [1.0])
        self._check_reach(cases)

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts: anywhere within reach, or on finer levels around the plane."""
        situations = np.zeros(n, _SITUATION)
        situations["case"], situations["head"] = self._pairs[rng.integers(0, len(self._pairs), n)].T
        situations["level"] = rng.integers(0, self.levels, n)
        situations["pose"] = draw_poses(rng, self.poses, n, 3)
        situations["plane"] = rng.uniform(-1, 1, (n, 3)) * self._reach
        miss = 2 * self._steps[np.maximum(situations["level"], 1) - 1] * rng.uniform(-1, 1, (n, 3))
        fine = situations["level"] > 0
        situations["plane"][fine] = (self.targets(situations) + miss)[fine]
        situations["plane"] = np.clip(situations["plane"], -self._reach, self._reach)
        return situations

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Every plane that a case has, `repeats` times, adjacent, level 0."""
        n = len(self._pairs)
        situations = np.zeros(n * repeats, _SITUATION)
        situations["case"], situations["head"] = np.repeat(self._pairs, repeats, axis=0).T
        poses = draw_poses(rng, self.poses, n, 3) if posed else native_poses(n, 3)
        situations["pose"] = np.repeat(poses, repeats, axis=0)
        situations["plane"] = rng.uniform(-0.75, 0.75, (len(situations), 3)) * self._reach
        return situations

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, 5, roi, roi]."""
        return self.look(situations, self._strides[situations["level"]], self.roi)

    def look(
        self, situations: Situations, strides_mm: NDArray[np.float64], roi: int
    ) -> NDArray[np.uint8]:
        """uint8[n, 5, roi, roi]: the cuts at other strides float64[n], for people to look at."""
        case, pose = situations["case"].astype(np.int64), Poses.of(situations["pose"])
        normal, right, up = np.moveaxis(self._axes(situations), 2, 0)
        middle = normal * situations["plane"][:, 2:].astype(np.float64)
        stride = strides_mm[:, None]
        slab = normal * stride * self.settings.slab
        middles = np.stack([middle - slab, middle, middle + slab, middle, middle], axis=1)
        # Columns, rows and normal of each cut.
        along = np.stack([right, up, normal], axis=1)
        axes = np.stack([along, along, along, along[:, [2, 1, 0]], along[:, [2, 0, 1]]], axis=1)
        axes = self.images.index_steps(pose.native_vectors(axes * stride[:, None, None]), case)
        origin = self.images.index(pose.native(middles), case)
        cut = sample_3d(self.images, case, origin, axes, pose.gamma, (1, roi))
        return cut.reshape(len(situations), 5, roi, roi)

    def step(self, situations: Situations) -> Outcome:
        """Take each situation's action; a move beyond the reach is not made and earns -1."""
        planes, rewards = self._after(situations, _MOVES[situations["action"]][:, None])
        reached = situations.copy()
        reached["plane"] = planes[:, 0]
        return Outcome(reached, rewards[:, 0], np.zeros(len(situations), dtype=bool))

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, actions]."""
        return self._after(situations, np.broadcast_to(_MOVES, (len(situations), *_MOVES.shape)))[1]

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, 3]: two angles (degrees) and the offset (posed mm)."""
        return np.array(situations["plane"])

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put planes elsewhere, in place."""
        situations["plane"] = parameters

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: the parameters of the true planes."""
        pose, key = Poses.of(situations["pose"]), (situations["case"], situations["head"])
        normal = np.einsum("nij,nj->ni", pose.rotation, self._normals[key])
        inside = np.einsum("ni,nij->nj", normal, self._base[situations["head"].astype(np.int64)])
        sense = np.where(inside[:, :1] < 0, -1.0, 1.0)
        inside, normal = inside * sense, normal * sense
        offset = (normal * pose.posed(self._points[key])).sum(axis=1)
        first = np.rad2deg(np.arctan2(inside[:, 1], inside[:, 0]))
        second = np.rad2deg(np.arcsin(np.clip(inside[:, 2], -1, 1)))
        return np.stack([first, second, offset], axis=1)

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: mm between the parameters, angles weighed by the lever."""
        gap = (situations["plane"] - self.targets(situations)) * self._weights
        return np.asarray(np.linalg.norm(gap, axis=1))

    def fractions(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: the parameters within their reach."""
        return np.asarray(np.clip((situations["plane"] / self._reach + 1) / 2, 0.0, 1.0))

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: way from the true plane's parameters in steps of the level."""
        gap = situations["plane"] - self.targets(situations)
        return np.asarray(gap / self._steps[situations["level"]])

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Angle and offset between the planes, and the landmarks' mean distance to the found."""
        pose, truth = Poses.of(situations["pose"]), self.targets(situations)
        normal = self._axes(situations)[:, :, 0]
        true_normal = self._axes(situations, truth)[:, :, 0]
        # More exact at small angles than the arc cosine.
        half = np.clip(np.linalg.norm(normal - true_normal, axis=1) / 2, 0, 1)
        points = pose.posed(self._landmarks[situations["case"], situations["head"]])
        far = np.abs(np.einsum("nki,ni->nk", points, normal) - situations["plane"][:, 2:])
        seen = np.isfinite(far)
        mean = np.where(seen, far, 0).sum(axis=1) / np.where(seen.any(axis=1), seen.sum(axis=1), 1)
        return {
            "angle_deg": np.rad2deg(2 * np.arcsin(half)),
            "offset_mm": np.abs(situations["plane"][:, 2] - truth[:, 2]) / pose.scale,
            "landmark_to_plane_mm": np.where(seen.any(axis=1), mean, np.nan) / pose.scale,
        }

    def native_planes(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 2, 3], native situations: a point (mm from the middle), the unit normal."""
        normal = self._axes(situations)[:, :, 0]
        return np.stack([normal * situations["plane"][:, 2:].astype(np.float64), normal], axis=1)

    def _axes(
        self, situations: Situations, planes: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """float64[n, 3, 3], columns: unit normal, and the plane's two directions.

        Args:
            situations: say which plane is looked for.
            planes: float64[n, 3], others than where the situations are.
        """
        angles = situations["plane"] if planes is None else planes
        first, second = np.deg2rad(angles[:, :2].astype(np.float64)).T
        (ca, sa), (cb, sb) = (np.cos(first), np.sin(first)), (np.cos(second), np.sin(second))
        zero = np.zeros_like(ca)
        turned = np.array([[ca * cb, -sa, -ca * sb], [sa * cb, ca, -sa * sb], [sb, zero, cb]])
        base = self._base[situations["head"].astype(np.int64)]
        return np.asarray(np.einsum("nij,jkn->nik", base, turned))

    def _after(
        self, situations: Situations, moves: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(planes [n, m, 3], rewards [n, m]) of moves [n, m, 3]."""
        here, truth = situations["plane"][:, None], self.targets(situations)[:, None]
        there = (here + moves * self._steps[situations["level"]][:, None]).astype(np.float32)
        # A millionth further than the reach is a rounding error, no step.
        beyond = np.asarray((np.abs(there) > self._reach * (1 + 1e-6)).any(axis=2))
        there = np.where(beyond[:, :, None], here, there)
        before = np.linalg.norm((here - truth) * self._weights, axis=2)
        after = np.linalg.norm((there - truth) * self._weights, axis=2)
        length = np.abs(moves * (self._steps * self._weights)[situations["level"]][:, None]).sum(
            axis=2
        )
        rewards = np.where(beyond, -1.0, np.clip((before - after) / length, -1, 1))
        return there, rewards.astype(np.float32)

    def _check_reach(self, cases: Sequence[PlaneCase]) -> None:
        """Refuse planes that no search could get to even without a pose."""
        situations = np.zeros(len(self._pairs), _SITUATION)
        situations["case"], situations["head"] = self._pairs.T
        situations["pose"] = native_poses(len(situations), 3)
        beyond = (np.abs(self.targets(situations)) > self._reach).any(axis=1)
        if beyond.any():
            first = situations[int(np.flatnonzero(beyond)[0])]
            raise InputDataError(
                "a plane is out of reach",
                field=f"{cases[first['case']].name}: plane {first['head']}",
                expected="within reach_deg and reach_mm of the reference normal",
                advice="Choose the reference normal nearest to the planes, or a larger reach",
            )


def _frame_of(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[3, 3], a right-handed frame: columns the unit normal and two across it."""
    normal = normal / np.linalg.norm(normal)
    # The axis after the one that the normal is nearest to; unchanged frames for x, y and z.
    other = np.roll(np.eye(3)[np.abs(normal).argmax()], 1)
    second = other - normal * (normal @ other)
    second /= np.linalg.norm(second)
    return np.stack([normal, second, np.cross(normal, second)], axis=1)

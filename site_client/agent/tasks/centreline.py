"""Centrelines of vessels, traced step by step from a seed.

The agent has a heading: each step goes straight on or turns a little to one side, and the
last action stops. What it sees is cut along its heading, so a vessel looks the same
whichever way it runs. The answer is the whole trace: a situation remembers the points it
came by, and its parameters are points at equal distances along them, in the frame of the
seed and the direction given with it. A trace also ends where it would leave the image.
The truth is a line whose first point is the seed.

The reward is the approach, in steps, to the point of the true line that lies two steps
ahead of the nearest one; stopping earns +1 at the end of the line and -1 before it.
Source of the task and of a reward that looks ahead along the line: Zhang et al., MICCAI 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import CentrelineSettings, PoseSettings
from site_client.agent.task import MM, Outcome, Situations
from site_client.agent.tasks.polylines import Lines, apart, resampled
from site_client.agent.tasks.poses import Poses, draw_poses, native_poses, pose_length
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB, Pyramids, Raster, build_pyramids
from site_client.imaging.sampling import sample_2d, sample_3d

KNOTS = 32
"""Points that a trace is told by: its parameters."""

_AHEAD = 2.0  # steps from the nearest point of the true line to the one that rewards pull to
# Training starts miss the line by up to the tolerance, and its direction by up to so much.
_ASTRAY_DEG = 35.0
# A seed is a click: evaluation starts miss it by up to half the tolerance, and this much.
_CLICK_DEG = 10.0
_AT_THE_END = 0.15  # share of training starts near the end of a line, where stopping is learned
_END_STEPS = 4.0
# A view's middle lies this share of its side ahead of the agent.
_FORWARD = 0.25


@dataclass(frozen=True, eq=False)
class CentrelineCase:
    """One image and the vessels in it.

    Attributes:
        name: kept out of `repr` and of everything that leaves the site.
        raster: the image.
        lines_mm: float64[points, d] each, mm from the middle of the image along the
            patient's (2-D: the image's) axes, from the seed to the end.
    """

    name: str
    raster: Raster
    lines_mm: tuple[NDArray[np.float64], ...]

    def __repr__(self) -> str:
        return f"CentrelineCase(shape={self.raster.pixels.shape}, lines={len(self.lines_mm)})"


class Centreline:
    """Tracing of vessels in images or volumes.

    An observation has for every stride the cut along the heading; in volumes the two cuts
    along it and the one across it, a step ahead.

    Args:
        cases: images with their lines; those without any are never searched.
        settings: steps and views.
        poses: extent of the random pose.
        roi: samples along each side of a view.
        limit_mib: ceiling of the pixels in memory.

    Attributes:
        lines_of: int64[lines, 2], the case of each line, and which of its lines it is.

    Raises:
        InputDataError: no lines, or images that do not fit together.
    """

    heads = 1
    levels = 1
    agents = 1
    unit = MM

    def __init__(
        self,
        cases: Sequence[CentrelineCase],
        settings: CentrelineSettings | None = None,
        poses: PoseSettings | None = None,
        limit_mib: int = DEFAULT_LIMIT_MIB,
        *,
        roi: int = 25,
    ) -> None:
        self.settings, self.roi = settings or CentrelineSettings(), roi
        self.poses = poses or PoseSettings()
        self.images: Pyramids = build_pyramids((case.raster for case in cases), 0.0, limit_mib)
        self.dim = d = self.images.dim
        lines = [(c, k) for c, case in enumerate(cases) for k in range(len(case.lines_mm))]
        if not lines or len(cases) > 65_535 or len(lines) > 65_535:
            raise InputDataError(
                "nothing to trace", expected="1 to 65535 cases, at least one of them with a line"
            )
        self.lines_of = np.array(lines, dtype=np.int64)
        self.lines = Lines.of([np.asarray(cases[c].lines_mm[k], np.float64) for c, k in lines])
        s = self.settings
        self.actions = 2 * d
        views = len(s.strides_mm) * (1 if d == 2 else 3)
        self.shape: tuple[int, ...] = (views * self.images.channels, roi, roi)
        self.situation: np.dtype[np.void] = np.dtype(
            [
                ("case", "<u2"),
                ("head", "u1"),
                ("level", "u1"),
                ("action", "u1"),
                ("pose", "<f2", pose_length(d)),
                ("line", "<u2"),
                # Columns: the heading, and what is across it; posed.
                ("frame", "<f4", (d, d)),
                ("position", "<f4", d),
                ("begin", "<f4", d),
                ("points", "u1"),
                # Where the trace came by, from its begin on, posed mm.
                ("trail", "<f2", (s.longest, d)),
            ]
        )
        self._turns = _turns(d, s.turn_deg)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def stop(self) -> int:
        """The action that ends a trace."""
        return self.actions - 1

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts: anywhere along a line, a little off it and astray."""
        situations = np.zeros(n, self.situation)
        situations["pose"] = draw_poses(rng, self.poses, n, self.dim)
        line = rng.integers(0, len(self.lines_of), n)
        lengths, end = self.lengths(line), _END_STEPS * self.settings.step_mm
        arc = rng.uniform(0, 1, n) * lengths
        late = rng.random(n) < _AT_THE_END
        arc[late] = lengths[late] - np.minimum(lengths, end * rng.uniform(0, 1, n))[late]
        self._begin(rng, situations, line, arc, self.settings.tolerance_mm, _ASTRAY_DEG)
        return situations

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """The seed of every line, `repeats` times, adjacent; missed as a click misses it."""
        n = len(self.lines_of)
        poses = draw_poses(rng, self.poses, n, self.dim) if posed else native_poses(n, self.dim)
        situations = np.zeros(n * repeats, self.situation)
        situations["pose"] = np.repeat(poses, repeats, axis=0)
        line = np.repeat(np.arange(n), repeats)
        arc = np.zeros(len(line))
        self._begin(rng, situations, line, arc, self.settings.tolerance_mm / 2, _CLICK_DEG)
        return situations

    def lengths(self, line: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64[n]: lengths of lines as acquired, mm."""
        return np.asarray(self.lines.lengths[line])

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, channels, roi, roi]; along the heading towards the last column."""
        case, pose = situations["case"].astype(np.int64), Poses.of(situations["pose"])
        n, d, roi = len(situations), self.dim, self.roi
        frame = np.moveaxis(situations["frame"].astype(np.float64), 2, 1)  # rows: directions
        position, heading = situations["position"][:, None].astype(np.float64), frame[:, :1]
        strides = np.array(self.settings.strides_mm)[:, None]
        ahead = position + heading * (_FORWARD * roi * strides)
        if d == 2:
            middles, axes = ahead, frame[:, None] * strides[:, :, None]
        else:
            near = np.broadcast_to(position + heading * self.settings.step_mm, ahead.shape)
            middles = np.stack([ahead, ahead, near], axis=2).reshape(n, -1, 3)
            cuts = frame[:, [[0, 1, 2], [0, 2, 1], [1, 2, 0]]]
            axes = (cuts[:, None] * strides[:, :, None, None]).reshape(n, -1, 3, 3)
        middles = self.images.index(pose.native(middles), case)
        axes = self.images.index_steps(pose.native_vectors(axes), case)
        if d == 2:
            cut = sample_2d(self.images, case, middles, axes, pose.gamma, roi)
        else:
            cut = sample_3d(self.images, case, middles, axes, pose.gamma, (1, roi))
        return cut.reshape(n, *self.shape)

    def step(self, situations: Situations) -> Outcome:
        """Take each situation's action; a stop ends the trace, as leaving the image does."""
        frames, places, outside, rewards = self._after(situations, situations["action"][:, None])
        stopped = situations["action"] == self.stop
        full = situations["points"] >= self.settings.longest
        ended = stopped | outside[:, 0] | full
        reached = situations.copy()
        moved = np.flatnonzero(~ended)
        reached["frame"][moved] = frames[moved, 0]
        reached["position"][moved] = places[moved, 0]
        count = situations["points"][moved].astype(np.int64)
        reached["trail"][moved, count] = places[moved, 0] - situations["begin"][moved]
        reached["points"][moved] = count + 1
        return Outcome(reached, rewards[:, 0], ended)

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, actions]."""
        every = np.broadcast_to(np.arange(self.actions), (len(situations), self.actions))
        return self._after(situations, every)[3]

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, knots * d]: even points of each trace in its seed's frame, mm."""
        frames, seeds = self._seeds(situations)
        knots = np.stack([resampled(trace, KNOTS) for trace in self.traces(situations)])
        inside = np.einsum("nki,nij->nkj", knots - seeds[:, None], frames)
        return np.asarray(inside.reshape(len(situations), -1), np.float32)

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Give situations another trace, in place; its end is where they are."""
        frames, seeds = self._seeds(situations)
        inside = parameters.reshape(len(situations), KNOTS, self.dim).astype(np.float64)
        knots = seeds[:, None] + np.einsum("nkj,nij->nki", inside, frames)
        situations["begin"], situations["position"] = knots[:, 0], knots[:, -1]
        situations["trail"][:, :KNOTS] = knots - knots[:, :1]
        situations["points"] = KNOTS
        situations["frame"] = frames_along(knots[:, -1] - knots[:, -2])

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, knots * d]: the parameters of the true lines."""
        frames, seeds = self._seeds(situations)
        knots_native = np.stack([resampled(self.lines.own(k), KNOTS) for k in situations["line"]])
        knots = Poses.of(situations["pose"]).posed(knots_native) - seeds[:, None]
        return np.asarray(np.einsum("nki,nij->nkj", knots, frames).reshape(len(situations), -1))

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: mean distance of the traces and the lines from each other, posed mm."""
        pairs = self._apart(situations)
        return np.array([(off.mean() + missed.mean()) / 2 for off, missed in pairs])

    def fractions(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: where in its image each is; the third is 0 in two dimensions."""
        place = np.zeros((len(situations), 3))
        native = Poses.of(situations["pose"]).native(situations["position"])
        within = self.images.fractions(native, situations["case"].astype(np.int64))
        place[:, : self.dim] = np.clip(within, 0, 1)
        return place

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, d]: way, along the heading and across it, from what rewards pull to."""
        pose, line = Poses.of(situations["pose"]), situations["line"]
        here = situations["position"].astype(np.float64)
        ahead = pose.posed(self._ahead(line, pose.native(here), self.settings.step_mm / pose.scale))
        way = np.einsum("nij,ni->nj", situations["frame"].astype(np.float64), here - ahead)
        return np.asarray(way / self.settings.step_mm)

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Distance of the trace's points from the line (patient's mm), and the share traced."""
        scale, reach = Poses.of(situations["pose"]).scale, self.settings.tolerance_mm
        pairs = self._apart(situations)
        return {
            "off_mm": np.array([off.mean() for off, _ in pairs]) / scale,
            "traced": np.array([(missed <= reach).mean() for _, missed in pairs]),
        }

    def traces(self, situations: Situations) -> list[NDArray[np.float64]]:
        """float64[points, d] of each: where it came by, posed mm."""
        begin, trail = situations["begin"].astype(np.float64), situations["trail"]
        return [
            begin[k] + trail[k, :count].astype(np.float64)
            for k, count in enumerate(situations["points"])
        ]

    def native_traces(self, situations: Situations) -> list[NDArray[np.float64]]:
        """float64[points, d] of each: the same as acquired, mm from the middle of the image."""
        return [
            Poses.of(situations["pose"][k : k + 1]).native(trace[None])[0]
            for k, trace in enumerate(self.traces(situations))
        ]

    def _begin(
        self,
        rng: np.random.Generator,
        situations: Situations,
        line: NDArray[np.int64],
        arc: NDArray[np.float64],
        miss_mm: float,
        astray_deg: float,
    ) -> None:
        """Put fresh situations on lines, missing place and direction by as much as told."""
        n, d = len(situations), self.dim
        situations["case"], situations["line"] = self.lines_of[line, 0], line
        pose, case = Poses.of(situations["pose"]), situations["case"].astype(np.int64)
        place, direction = self._along(line, arc)
        place, direction = pose.posed(place), _turned_by(pose, direction)
        there = place + rng.uniform(-1, 1, (n, d)) * miss_mm / np.sqrt(d)
        within = self.images.fractions(pose.native(there), case)
        outside = ((within < 0) | (within > 1)).any(axis=1)
        there[outside] = place[outside]
        # An error of the direction: as long across it as the tangent of its angle.
        wrong = rng.uniform(-1, 1, (n, d)) * np.tan(np.deg2rad(astray_deg)) / np.sqrt(d)
        situations["frame"] = frames_along(direction + wrong, rng.uniform(-np.pi, np.pi, n))
        situations["position"] = situations["begin"] = there
        situations["points"] = 1

    def _ahead(
        self, line: NDArray[np.integer], places: NDArray[np.float64], step: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """float64[n, d]: points of lines some steps float64[n] ahead of the nearest; native."""
        return self.lines.at(line, self.lines.arcs(line, places) + _AHEAD * step)

    def _along(
        self, line: NDArray[np.integer], arc: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """float64[n, d] each: the points at arcs of lines, and the unit directions there."""
        reach = self.settings.step_mm
        back = self.lines.at(line, np.minimum(arc, self.lengths(line) - reach))
        ahead = self.lines.at(line, np.minimum(arc, self.lengths(line) - reach) + reach)
        along = ahead - back
        return self.lines.at(line, arc), along / np.linalg.norm(along, axis=1, keepdims=True)

    def _seeds(self, situations: Situations) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(frames [n, d, d], places [n, d]) of the seeds that were given, posed."""
        pose = Poses.of(situations["pose"])
        place, direction = self._along(situations["line"], np.zeros(len(situations)))
        return frames_along(_turned_by(pose, direction)), pose.posed(place)

    def _apart(
        self, situations: Situations
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Measure each trace and its true line, posed mm; see `apart`."""
        pose, traces = situations["pose"], self.traces(situations)
        pairs = []
        for k, line in enumerate(situations["line"]):
            truth = Poses.of(pose[k : k + 1]).posed(self.lines.own(line)[None])[0]
            pairs.append(apart(traces[k], truth))
        return pairs

    def _after(
        self, situations: Situations, actions: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
        """(frames [n, m, d, d], places [n, m, d], outside [n, m], rewards [n, m])."""
        s, pose, line = self.settings, Poses.of(situations["pose"]), situations["line"]
        frames = np.einsum("nij,nmjk->nmik", situations["frame"], self._turns[actions])
        here = situations["position"][:, None].astype(np.float64)
        goes = (actions != self.stop)[:, :, None]
        places = here + frames[:, :, :, 0] * (s.step_mm * goes)
        native = pose.native(places)
        within = self.images.fractions(native, situations["case"].astype(np.int64))
        outside = np.asarray(((within < 0) | (within > 1)).any(axis=2))
        native_here = pose.native(here)[:, 0]
        step = s.step_mm / pose.scale
        ahead = self._ahead(line, native_here, step)
        before = np.linalg.norm(native_here - ahead, axis=1)[:, None]
        after = np.linalg.norm(native - ahead[:, None], axis=2)
        gain = np.clip((before - after) / step[:, None], -1, 1)
        remaining = (
            np.linalg.norm(native_here - self.lines.at(line, self.lengths(line)), axis=1)
            * pose.scale
        )
        verdict = np.where(remaining <= s.tolerance_mm, 1.0, -1.0)[:, None]
        ends = outside | ~goes[:, :, 0]
        rewards = np.where(ends, verdict, gain).astype(np.float32)
        return frames.astype(np.float32), places.astype(np.float32), outside, rewards


def frames_along(
    directions: NDArray[np.float64], roll: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """float64[n, d, d], columns: directions float64[n, d] of any length, and what is across.

    Args:
        directions: none of them zero.
        roll: float64[n], radians by which what is across is turned about them; in two
            dimensions there is no such turn.
    """
    first = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    if first.shape[1] == 2:
        return np.stack([first, first[:, ::-1] * (-1.0, 1.0)], axis=2)
    # The axis after the one that the direction is nearest to.
    other = np.roll(np.eye(3), 1, axis=0)[np.abs(first).argmax(axis=1)]
    second = other - first * np.einsum("ni,ni->n", first, other)[:, None]
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    third = np.cross(first, second)
    if roll is not None:
        c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
        second, third = c * second + s * third, c * third - s * second
    return np.stack([first, second, third], axis=2)


def _turned_by(pose: Poses, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n, d]: directions as they are after a pose."""
    return np.asarray(np.einsum("nij,nj->ni", pose.rotation, directions))


def _turns(d: int, degrees: float) -> NDArray[np.float32]:
    """float32[2d, d, d]: by action, how a frame turns; straight on and stop do not."""
    turns = np.tile(np.eye(d), (2 * d, 1, 1))
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    for action in range(1, 2 * d - 1):
        across = (action + 1) // 2
        sign = s if action % 2 else -s
        turns[action][0, 0] = turns[action][across, across] = c
        turns[action][across, 0], turns[action][0, across] = sign, -sign
    return turns.astype(np.float32)

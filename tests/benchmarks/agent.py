"""What the landmark agents cost: steps, updates, crops, bytes, beside the field's way.

``python -m tests.benchmarks.agent [--json] [--quick]`` measures ours and its peers in
the same run, interleaved, in CPU-seconds, on made-up images. Peers are re-expressed
here: rl-medical's batch-1 loop and stored frames, scipy's and torch's interpolation.
Prints what fell short of its target; never fails for slowness.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional

from common.errors import InputDataError
from common.settings import (
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
)
from site_client.agent.learner import Learner
from site_client.agent.network import network_values, to_tensors
from site_client.agent.networks import (
    PLAIN,
    Execution,
    build_network,
    fastest,
    keep_freed_memory,
)
from site_client.agent.replay import Replay
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.landmark3d import Cases3D, Landmark3D, build_cases_3d
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.agent.tasks.views import Views
from site_client.imaging.cases import raster_of
from site_client.imaging.dataset import Case
from site_client.imaging.pyramids import build_pyramids
from site_client.imaging.sampling import sample_2d, sample_3d
from site_client.imaging.volumes import Volume

LADDER = Ladder((3.0, 2.0, 1.0), (9.0, 3.0, 1.0))
ROI, SEARCHES, BATCH = 45, 32, 64
HEAD = (182, 218, 182)  # voxels of rl-medical's brain scans
FULL_BATCH_ROWS = 16


@dataclass(frozen=True)
class Figure:
    """One promise: what was measured, its peer's, how much better, and the target."""

    figure: str
    unit: str
    ours: float
    peer: float | None
    ratio: float | None
    target: str
    met: bool


def compared(
    figure: str, unit: str, ours: float, peer: float, least: float | None, *, more: bool
) -> Figure:
    """A figure whose target is a ratio; `more` says that more of the unit is better."""
    ratio = ours / peer if more else peer / ours
    target = "none" if least is None else f"ratio >= {least:g}"
    return Figure(figure, unit, ours, peer, ratio, target, least is None or ratio >= least)


def bounded(figure: str, unit: str, ours: float, most: float, peer: float | None = None) -> Figure:
    """A figure whose target is an upper bound."""
    ratio = None if peer is None else peer / ours
    return Figure(figure, unit, ours, peer, ratio, f"<= {most:g}", ours <= most)


# --- what everything is measured on --------------------------------------------------------------


def made_up(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A smooth uint8 image."""
    rng = np.random.Generator(np.random.PCG64(seed))
    coarse = rng.random([-(-side // 16) for side in shape])
    for axis in range(len(shape)):
        coarse = coarse.repeat(16, axis=axis)
    return (255 * coarse[tuple(slice(side) for side in shape)]).astype(np.uint8)


def volume_cases(n: int, size: tuple[int, int, int] = HEAD) -> list[Case]:
    landmarks = np.array([[85.0, 120.0, 70.0], [90.0, 100.0, 75.0]])
    return [
        Case(f"v{k}", Volume(made_up(size[::-1], k), 1.0, (0.0, 0.0, 0.0), np.eye(3)), landmarks)
        for k in range(n)
    ]


def planar_task(n: int = 4) -> Landmark2D:
    points = np.array([[80.0, 90.0], [120.0, 60.0]])
    cases = [Case2D(f"i{k}", made_up((1, 218, 182), k), (1.0, 1.0), points) for k in range(n)]
    return Landmark2D(build_cases_2d(cases), LADDER, Views.channels())


def triplanar_task(cases: list[Case]) -> TriplanarLandmark:
    ladder = LadderSettings(scales=LADDER.strides_mm, steps_mm=LADDER.steps_mm)
    return TriplanarLandmark(cases, ladder, PoseSettings(), roi=ROI, spacing_mm=1.0)


def network_for(architecture: str, task, execution: Execution = PLAIN):
    settings = NetworkSettings.model_validate({"architecture": architecture})
    return build_network(settings, task, torch.Generator().manual_seed(0), execution)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def interleaved(actions: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """CPU-seconds per unit of each action (which returns its units); median over the rounds."""
    spent: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(rounds):
        for name, action in actions.items():
            start = time.process_time()
            units = action()
            spent[name].append((time.process_time() - start) / units)
    return {name: float(np.median(times)) for name, times in spent.items()}


# --- steps ---------------------------------------------------------------------------------------


class FrameLoop:
    """rl-medical's way of acting: one search, one frame cut per step, four frames to the net."""

    def __init__(self, volume: np.ndarray, task) -> None:
        self.volume = volume.astype(np.float32)
        self.network = network_for("network3d", task)
        self.rng = rng_of(1)
        self.at = np.array(volume.shape) // 2
        self.scale = 3
        self.frames = deque([self.cut()] * 4, maxlen=4)

    def cut(self) -> np.ndarray:
        """float32[45, 45, 45] around the agent, zeros outside, strided slices."""
        out = np.zeros((ROI,) * 3, np.float32)
        source, target = [], []
        for centre, side in zip(self.at, self.volume.shape, strict=True):
            index = centre + self.scale * (np.arange(ROI) - ROI // 2)
            inside = np.flatnonzero((index >= 0) & (index < side))
            source.append(slice(index[inside[0]], index[inside[-1]] + 1, self.scale))
            target.append(slice(inside[0], inside[-1] + 1))
        out[tuple(target)] = self.volume[tuple(source)]
        return out

    @torch.no_grad()
    def steps(self, n: int) -> int:
        zero = torch.zeros(1, dtype=torch.long)
        for _ in range(n):
            stack = torch.from_numpy(np.stack(self.frames))[None] / 255
            action = int(self.network(stack, zero, zero).argmax())
            move = np.zeros(3, int)
            move[action // 2] = 9 if action % 2 == 0 else -9
            self.at = np.clip(self.at + move, 0, np.array(self.volume.shape) - 1)
            self.frames.append(self.cut())
        return n


def lockstep(task, architecture: str, execution: Execution) -> Callable[[int], int]:
    """Greedy steps of 32 searches at once: cut, decide, move."""
    network = network_for(architecture, task, execution)
    state = {"at": task.draw(rng_of(2), SEARCHES)}

    def steps(n: int) -> int:
        for _ in range(n):
            at = state["at"]
            at["action"] = network_values(task, network, at).argmax(axis=-1)
            state["at"] = task.step(at).reached
        return n * SEARCHES

    return steps


def measure_steps(cases: list[Case], rounds: int) -> list[Figure]:
    laid_out = build_cases_3d(cases)
    published = Landmark3D(laid_out, LADDER, Views.history())
    loop = FrameLoop(cases[0].volume.voxels, published)
    light = {
        "tri-planar": (triplanar_task(cases), "triplanar"),
        "2D": (planar_task(), "planar"),
        "3D 45^3": (Landmark3D(laid_out, LADDER), "volume-light"),
    }
    actions: dict[str, Callable[[], int]] = {"loop": lambda: loop.steps(4)}
    for name, (task, architecture) in light.items():
        for way, execution in (("plain", PLAIN), ("fastest", fastest())):
            steps = lockstep(task, architecture, execution)
            actions[f"{name}, {way}"] = lambda steps=steps: steps(4)
    spent = interleaved(actions, rounds)
    return [
        compared(
            f"lockstep steps, light {name}, against the batch-1 Network3D loop",
            "steps / CPU-s",
            1 / spent[name],
            1 / spent["loop"],
            10,
            more=True,
        )
        for name in spent
        if name != "loop"
    ]


# --- updates -------------------------------------------------------------------------------------


def updater(architecture: str, task, execution: Execution, rows: int) -> Callable[[], int]:
    """DQN updates (target forward, online forward and backward, Adam); returns transitions."""
    online, target = (network_for(architecture, task, execution) for _ in range(2))
    optimiser = torch.optim.Adam(online.parameters(), 1e-4)
    at = task.draw(rng_of(3), rows)
    inputs = to_tensors(task.observe(at), at)

    def update() -> int:
        with torch.no_grad():
            wanted = 0.9 * target(*inputs).max(dim=-1).values
        loss = functional.smooth_l1_loss(online(*inputs)[..., 0], wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return rows

    return update


def measure_updates(cases: list[Case], rounds: int, rows: int) -> list[Figure]:
    laid_out = build_cases_3d(cases)
    published = Landmark3D(laid_out, LADDER, Views.history())
    light = Landmark3D(laid_out, LADDER)
    planes = triplanar_task(cases)
    found: list[Figure] = []
    for name, architecture, task, least, n in (
        ("Network3D", "network3d", published, 2.0, rows),
        ("light 3D", "volume-light", light, None, BATCH),
        ("light tri-planar", "triplanar", planes, None, BATCH),
    ):
        spent = interleaved(
            {
                "fast": updater(architecture, task, fastest(), n),
                "plain": updater(architecture, task, PLAIN, n),
            },
            rounds,
        )
        label = f"updates, {name}, channels-last bfloat16 against plain"
        if fastest() == PLAIN:
            label += " (this processor has no 16-bit instructions: nothing to gain)"
        rate = {way: 1 / seconds for way, seconds in spent.items()}
        found.append(
            compared(label, "transitions / CPU-s", rate["fast"], rate["plain"], least, more=True)
        )
        if architecture == "network3d":
            peer = rate["plain"]
        elif architecture == "triplanar":
            found.append(
                compared(
                    "updates, light tri-planar plain against Network3D plain",
                    "transitions / CPU-s",
                    rate["plain"],
                    peer,
                    10,
                    more=True,
                )
            )
    return found


# --- crops ---------------------------------------------------------------------------------------


def measure_crops(cases: list[Case], rounds: int) -> list[Figure]:
    """Posed, interpolated crops of one request list, by three means."""
    volumes = build_pyramids([raster_of(cases[0].volume)])
    image = made_up((1, 218, 182), 0)
    pictures = planar_task(1).cases.images
    turned = turn(0.2) @ np.diag([0.9, 0.9, 0.9])
    cuts = np.stack([turned, turned[[1, 2, 0]], turned[[2, 0, 1]]])
    plans = {
        "2D 45^2": (16, np.full((16, 1, 2), 90.0), np.tile(turned[:2, :2], (16, 1, 1, 1)), 1),
        "tri-planar 3 x 45^2": (16, np.full((16, 3, 3), 90.0), np.tile(cuts, (16, 1, 1, 1)), 1),
        "3D 45^3": (4, np.full((4, 1, 3), 90.0), np.tile(turned, (4, 1, 1, 1)), ROI),
    }
    found = []
    for name, (n, origin, axes, depth) in plans.items():
        zeros, ones = np.zeros(n, np.int64), np.ones(n)
        flat = origin.shape[2] == 2
        voxels = image[0] if flat else cases[0].volume.voxels
        cut = sample_2d if flat else sample_3d
        images, size = (pictures, ROI) if flat else (volumes, (depth, ROI))
        resting = torch.from_numpy(voxels).float()[None, None]
        peers = {
            "scipy": partial(by_scipy, voxels, origin, axes, depth),
            "torch": partial(by_torch, resting, origin, axes, depth),
        }
        ours = partial(counted, cut, images, zeros, origin, axes, ones, size)
        spent = interleaved({"ours": ours, **peers}, rounds)
        for peer in peers:
            found.append(
                compared(
                    f"crop, posed and interpolated, {name}, against {peer}",
                    "us / ROI",
                    1e6 * spent["ours"],
                    1e6 * spent[peer],
                    1,
                    more=False,
                )
            )
    return found


def counted(cut: Callable[..., np.ndarray], *request) -> int:
    return len(cut(*request))


def turn(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return about_x @ about_z


def grid(origin: np.ndarray, axes: np.ndarray, depth: int) -> np.ndarray:
    """float64[depth, 45, 45, d]: indices (x, y[, z]) of one cut's samples."""
    side = np.arange(ROI) - ROI // 2
    slices = np.arange(depth) - depth // 2
    place = origin + side[None, None, :, None] * axes[0] + side[None, :, None, None] * axes[1]
    return place + slices[:, None, None, None] * axes[2] if len(origin) == 3 else place


def by_scipy(voxels: np.ndarray, origin: np.ndarray, axes: np.ndarray, depth: int) -> int:
    for i in range(len(origin)):
        for j in range(origin.shape[1]):
            at = grid(origin[i, j], axes[i, j], depth)[..., ::-1]
            map_coordinates(voxels, np.moveaxis(at, -1, 0), order=1, prefilter=False)
    return len(origin)


def by_torch(voxels: torch.Tensor, origin: np.ndarray, axes: np.ndarray, depth: int) -> int:
    n, cuts = origin.shape[:2]
    last = np.array(voxels.shape[:1:-1]) - 1.0
    at = np.stack([grid(origin[i, j], axes[i, j], depth) for i in range(n) for j in range(cuts)])
    inside = torch.from_numpy((2 * at / last - 1).astype(np.float32))
    inside = inside[:, 0] if len(last) == 2 else inside
    source = voxels.expand(len(inside), *voxels.shape[1:])
    functional.grid_sample(source, inside, align_corners=True).to(torch.uint8)
    return n


# --- memory --------------------------------------------------------------------------------------


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_gb() -> float:
    """Peak resident memory of this process since it was started.

    Not ``ru_maxrss``: that of a child begins with its parent's, which has grown by then.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)[1]) * 1024 / 1e9


def child(name: str, *, threads: str | None = "1") -> dict[str, float]:
    """Run one measurement in a process of its own; its JSON."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = threads
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.agent", "--child", name],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def child_replay(kind: str, transitions: int = 1_000_000) -> dict[str, float]:
    task = Landmark3D(build_cases_3d(volume_cases(1, (60, 60, 60))), LADDER, Views.history())
    drawn = task.draw(rng_of(0), 10_000)
    before = resident_mb()
    settings = LearnerSettings.model_validate({"replay": kind, "replay_capacity": transitions})
    replay = Replay(task.situation, settings)
    for _ in range(transitions // len(drawn)):
        replay.add(drawn, np.ones(len(drawn)) if kind == "rare-first" else None)
    held = replay.size
    return {"mb": resident_mb() - before, "bytes": task.situation.itemsize, "held": held}


def child_frames(transitions: int = 2_000) -> dict[str, float]:
    """rl-medical's replay: a frame of 45^3 per transition, and action, reward and end."""
    before = resident_mb()
    frames = np.zeros((transitions, ROI, ROI, ROI), np.uint8)
    frames += 1
    others = np.ones((transitions, 3), np.float32)
    return {"bytes": 1e6 * (resident_mb() - before) / transitions + 0 * others.nbytes}


def child_training(architecture: str, quick: str, execution: Execution) -> dict[str, float]:
    """A few updates of a 3D training as it is by default; peak memory of the process."""
    keep_freed_memory()
    views = Views.history() if architecture == "network3d" else Views()
    task = Landmark3D(build_cases_3d(volume_cases(2 if quick else 4)), LADDER, views)
    network = network_for(architecture, task, execution)
    settings = LearnerSettings(warmup=200, replay_capacity=1_000_000)
    report = Learner(task, network, settings, seed=0).train(3 if quick else 20)
    return {"gb": peak_gb(), "updates": report.updates}


def child_plain_training(rows: int = BATCH) -> dict[str, float]:
    """One plain Network3D update of a full batch, as rl-medical makes it."""
    task = Landmark3D(build_cases_3d(volume_cases(1)), LADDER, Views.history())
    update = updater("network3d", task, PLAIN, rows)
    update()
    return {"gb": peak_gb()}


def child_threads(ours: str) -> dict[str, float]:
    """CPU-seconds of an update with our threads, or with as many as torch takes by itself."""
    before = torch.get_num_threads()
    task = triplanar_task(volume_cases(2, (90, 110, 90)))
    learner = Learner(
        task,
        network_for("triplanar", task),
        LearnerSettings(warmup=200),
        seed=0,
        threads=1 if ours else before,
    )
    learner.train(2)
    wall, start = time.perf_counter(), time.process_time()
    learner.train(12)
    return {
        "threads_of_torch": before,
        "threads": torch.get_num_threads(),
        "cpu_ms": 1e3 * (time.process_time() - start) / 12,
        "wall_ms": 1e3 * (time.perf_counter() - wall) / 12,
    }


CHILDREN: dict[str, Callable[[], dict[str, float]]] = {
    "replay uniform": lambda: child_replay("uniform"),
    "replay rare-first": lambda: child_replay("rare-first"),
    "frames": child_frames,
    "training light": lambda: child_training("volume-light", "", fastest()),
    "training light quick": lambda: child_training("volume-light", "quick", fastest()),
    "training network3d": lambda: child_training("network3d", "quick", fastest()),
    "training network3d plain": lambda: child_training("network3d", "quick", PLAIN),
    "training plain": child_plain_training,
    "threads ours": lambda: child_threads("ours"),
    "threads torch": lambda: child_threads(""),
}


def measure_replay(cases: list[Case]) -> list[Figure]:
    frames = child("frames")["bytes"]
    tasks = {
        "tri-planar": triplanar_task(cases[:1]),
        "2D": planar_task(1),
        "3D, four frames": Landmark3D(build_cases_3d(cases[:1]), LADDER, Views.history()),
    }
    found = [
        bounded(f"replay, {name}, per transition", "bytes", task.situation.itemsize, 40, frames)
        for name, task in tasks.items()
    ]
    for kind in ("uniform", "rare-first"):
        held = child(f"replay {kind}")
        name = f"replay, 3D with four frames, {kind}, of {held['held']:.0f} transitions"
        found.append(bounded(name, "resident MB", held["mb"], 60, frames * held["held"] / 1e6))
    return found


def measure_images(cases: list[Case]) -> list[Figure]:
    """One pyramid for all tasks and folds against a float32 copy of every image per task."""
    laid_out: Cases3D = build_cases_3d(cases)
    folds = [laid_out.subset([k]) for k in range(len(cases))]
    tasks = [Landmark3D(fold, LADDER) for fold in folds] + [Landmark3D(laid_out, LADDER)]
    shared = all(task.images.pixels is laid_out.images.pixels for task in tasks)
    try:
        build_cases_3d(cases, limit_mib=4)
        refused = False
    except InputDataError:
        refused = True
    voxels = sum(case.volume.voxels.size for case in cases)
    ours = laid_out.images.pixels.nbytes / 1e6
    copies = 4 * voxels * 2 / 1e6
    figure = bounded(
        f"image pyramids of {len(cases)} heads, shared by {len(tasks)} tasks, ceiling enforced",
        "MB",
        ours,
        1.15 * voxels / 1e6,
        copies,
    )
    return [Figure(**{**asdict(figure), "met": figure.met and shared and refused})]


def measure_training(*, quick: bool) -> list[Figure]:
    light = child("training light quick" if quick else "training light")
    peer = None if quick else child("training plain")["gb"]
    found = [bounded("peak memory of a light 3D training", "GB", light["gb"], 1.5, peer)]
    if not quick:
        for child_name, way in (
            ("training network3d", "channels-last bfloat16"),
            ("training network3d plain", "plain"),
        ):
            name = f"peak memory of a Network3D training, batch {BATCH} in parts, {way}"
            found.append(bounded(name, "GB", child(child_name)["gb"], 1.5, peer))
    return found


def measure_threads() -> list[Figure]:
    ours, peer = child("threads ours", threads=None), child("threads torch", threads=None)
    name = (
        f"tri-planar update, threads capped at {ours['threads']:.0f} by default, "
        f"against torch's own {peer['threads']:.0f}"
    )
    figure = compared(name, "CPU-ms / update", ours["cpu_ms"], peer["cpu_ms"], 1, more=False)
    met = figure.met and ours["threads"] == 1
    return [Figure(**{**asdict(figure), "target": "1 thread, no more CPU", "met": met})]


def measure_all(*, quick: bool) -> Iterator[Figure]:
    torch.set_num_threads(1)
    # For ours and the peers alike: otherwise the system's page faults are what is measured.
    keep_freed_memory()
    rounds = 3 if quick else 7
    cases = volume_cases(2 if quick else 4)
    yield from measure_steps(cases, rounds)
    yield from measure_updates(cases, 2 if quick else 4, 4 if quick else FULL_BATCH_ROWS)
    yield from measure_crops(cases, rounds)
    yield from measure_replay(cases)
    yield from measure_images(cases)
    yield from measure_training(quick=quick)
    yield from measure_threads()


def line(f: Figure) -> str:
    peer = "" if f.peer is None else f", peer {f.peer:,.4g}, {f.ratio:.1f} times better"
    mark = "met  " if f.met else "SHORT"
    return f"{mark} {f.figure}: {f.ours:,.4g} {f.unit}{peer} (target {f.target})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="a list of figures instead of lines")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller batches")
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child]()))
        return
    figures = []
    for figure in measure_all(quick=arguments.quick):
        figures.append(figure)
        if not arguments.json:
            print(line(figure), flush=True)
    if arguments.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
        return
    short = [figure.figure for figure in figures if not figure.met]
    print(f"{len(short)} of {len(figures)} fell short" + "".join(f"\n  {name}" for name in short))


if __name__ == "__main__":
    main()

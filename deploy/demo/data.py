"""Data for the demonstration: each site's folder of head scans with landmarks, from one template.

Every subject is the ICBM 152 template under a seeded random pose, bend, field of
view and contrast, so this shows the machinery and not that an agent generalises
to new people. The template comes with nilearn's distribution: Copyright (C)
1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. The landmarks are anatomical fiducials (AFIDs),
CC-BY-4.0: Lau et al., Human Brain Mapping 2019; Taha et al., Scientific Data 2023.
"""

from __future__ import annotations

import importlib.util
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.synthesis import (
    Deformation,
    Grid,
    RawImage,
    random_bend,
    read_raw,
    write_raw,
)

# RAS millimetres in the template's space.
AFIDS_RAS_MM: dict[str, tuple[float, float, float]] = {
    "AC": (-0.12, 2.552, -4.817),
    "PC": (0.141, -25.124, -2.096),
    "PMJ": (0.027, -23.351, -21.876),
    "genu of CC": (0.002, 33.439, 2.525),
    "splenium of CC": (0.133, -37.624, 6.401),
}
_TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
# The template's own values of background, cerebrospinal fluid, grey and white matter.
_TEMPLATE_TISSUES = (0.0, 75.0, 168.0, 222.0)
SUBJECTS = 6
"""Scans of every site."""
_BEND_MM = 7.0
_HEAD_MM = 280.0


@dataclass(frozen=True)
class Protocol:
    """A hospital's way of scanning.

    Attributes:
        suffix: what BIDS calls the contrast.
        tissues: mean values of cerebrospinal fluid, grey and white matter, 0..255.
        spacing_mm: along the x, y, z index.
        axes: world direction (LPS) of the index axes: letters name where an index grows to.
        tilt_deg: gantry tilt about the left-right axis.
        bias: relative strength of the slow brightness drift of the coil.
        noise: standard deviation of the noise, in grey values.
    """

    suffix: str
    tissues: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    axes: str
    tilt_deg: float
    bias: float
    noise: float


PROTOCOLS = (
    Protocol("T1w", (55.0, 150.0, 225.0), (1.2, 1.2, 1.2), "LPS", 0.0, 0.10, 4.0),
    Protocol("PDw", (170.0, 215.0, 125.0), (1.0, 1.0, 2.4), "RAS", 9.0, 0.20, 6.0),
    Protocol("FLAIR", (35.0, 200.0, 130.0), (1.8, 1.4, 1.4), "PSR", -6.0, 0.30, 8.0),
)


@dataclass(frozen=True)
class DemoData:
    """The files that were written.

    Attributes:
        sites: each site's data folder, of the subjects that it trains on.
        heldout: folder of subjects that no site trains on.
        landmarks: names that every landmark file holds.
    """

    sites: tuple[Path, ...]
    heldout: Path
    landmarks: tuple[str, ...]


def template_path() -> Path:
    """Return the template inside nilearn's distribution, found without importing its code.

    Raises:
        InputDataError: nilearn is not installed, or no longer carries the file.
    """
    spec = importlib.util.find_spec("nilearn")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / _TEMPLATE).is_file():
            return Path(place) / _TEMPLATE
    raise InputDataError(
        "the demonstration's template is missing",
        field="nilearn",
        expected="installed with its data files",
        got="nothing there",
        advice="pip install --no-deps nilearn",
    )


def write_demo_data(
    folder: Path,
    seed: int,
    sites: int = 3,
    subjects_per_site: int = SUBJECTS,
    heldout: int = 6,
    progress: Callable[[int, int], None] | None = None,
) -> DemoData:
    """Write every site's folder and one of held-out subjects, the same bytes for the same seed.

    Args:
        folder: receives ``site-a`` … and ``heldout``.
        seed: of all subjects.
        sites: each has a protocol of its own; more than three repeat them.
        subjects_per_site: subjects in each site's folder.
        heldout: subjects whose contrasts lie across and beyond the protocols.
        progress: called with (subjects written, subjects in all).

    Raises:
        InputDataError: no template.
    """
    template = read_raw(template_path())
    plans = [(f"site-{string.ascii_lowercase[k]}", subjects_per_site) for k in range(sites)] + [
        ("heldout", heldout)
    ]
    total, written = sum(count for _, count in plans), 0
    for place, (name, count) in enumerate(plans):
        for subject in range(count):
            # One stream per subject: adding a site changes no other site's subjects.
            held_out = name == "heldout"
            stream = [seed, 0 if held_out else place + 1, subject]
            rng = np.random.Generator(np.random.PCG64(stream))
            protocol = PROTOCOLS[(subject if held_out else place) % len(PROTOCOLS)]
            stretch = (0.8, 1.3) if held_out else (0.95, 1.05)
            jitter = 12.0 if held_out else 4.0
            number = f"{'h' if held_out else place + 1}{subject + 1:02d}"
            _write_subject(folder / name, number, template, protocol, rng, stretch, jitter)
            written += 1
            if progress is not None:
                progress(written, total)
    folders = [folder / name for name, _ in plans]
    return DemoData(tuple(folders[:-1]), folders[-1], tuple(AFIDS_RAS_MM))


def held_out_subjects(place: int, sites: int = 3, heldout: int = 6) -> tuple[str, ...]:
    """Name the held-out subjects that lie in the folder of site number ``place``.

    They are shared out in turn, so that each site gets those of its own way of scanning.
    """
    return tuple(f"sub-h{subject + 1:02d}" for subject in range(place, heldout, sites))


def write_hospitals(data: DemoData, folder: Path) -> None:
    """Lay out what each hospital has: its own subjects, and its share of the held-out ones.

    Files are linked, not copied. A hospital's policy names the held-out ones, so that it
    tells errors on them and trains on the same subjects as it would without them.

    Args:
        data: as written.
        folder: receives a folder for every site, of the same name.
    """
    for place, site in enumerate(data.sites):
        _link(site, "sub-*", folder / site.name)
        for subject in held_out_subjects(place, len(data.sites)):
            _link(data.heldout, subject, folder / site.name)


def _link(source: Path, subjects: str, target: Path) -> None:
    """Link every file of some subjects, images and landmarks, at the same place below."""
    for part in (f"{subjects}/anat/*", f"derivatives/landmarks/{subjects}/anat/*"):
        for path in sorted(source.glob(part)):
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)


def draw_deformation(rng: np.random.Generator, template: RawImage) -> Deformation:
    """Draw a subject's head: turned, scaled and sheared a little, moved, and bent by up to 7 mm."""
    angles = np.deg2rad(rng.uniform(-8, 8, 3))
    affine = _rotation(*angles) @ np.diag(rng.uniform(0.88, 1.12, 3))
    affine += rng.uniform(-0.04, 0.04, (3, 3))
    shift = rng.uniform(-40, 40, 3)
    bend = random_bend(rng, _HEAD_MM, _BEND_MM)
    return Deformation(affine, _middle(template.grid), shift, bend)


def draw_grid(
    rng: np.random.Generator, protocol: Protocol, template: RawImage, deformation: Deformation
) -> Grid:
    """Draw a field of view around the head, cut or widened by up to 12 mm on every side."""
    last = np.array(template.grid.size) - 1.0
    corners = np.array(list(np.ndindex(2, 2, 2))) * last
    grid = template.grid
    world = np.asarray(grid.origin_mm) + (corners * grid.spacing_mm) @ grid.direction.T
    # A head is rounder than its box: the middle of each face bounds it better than the corners.
    faces = _middle(grid) + 0.92 * (np.repeat(np.ptp(world, axis=0) / 2, 2)[:, None]) * np.array(
        [sign * axis for axis in np.eye(3) for sign in (-1, 1)]
    )
    direction = _rotation(np.deg2rad(protocol.tilt_deg), 0.0, 0.0) @ _axes(protocol.axes)
    along = deformation.to_subject(faces) @ direction
    low = along.min(axis=0) + rng.uniform(-12, 12, 3)
    high = along.max(axis=0) + rng.uniform(-12, 12, 3)
    spacing = np.array(protocol.spacing_mm)
    size = np.ceil((high - low) / spacing).astype(int)
    x, y, z = (direction @ low).tolist()
    return Grid(tuple(size.tolist()), protocol.spacing_mm, (x, y, z), direction)


def _write_subject(
    folder: Path,
    number: str,
    template: RawImage,
    protocol: Protocol,
    rng: np.random.Generator,
    stretch: tuple[float, float],
    jitter: float,
) -> None:
    deformation = draw_deformation(rng, template)
    grid = draw_grid(rng, protocol, template, deformation)
    head = deformation.warp(template, grid)
    voxels = _scan(head, protocol, rng, rng.uniform(*stretch), jitter)
    anat = folder / f"sub-{number}" / "anat"
    derived = folder / "derivatives" / "landmarks" / f"sub-{number}" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    derived.mkdir(parents=True, exist_ok=True)
    write_raw(anat / f"sub-{number}_{protocol.suffix}.nii.gz", RawImage(voxels, grid))
    lps = np.array(list(AFIDS_RAS_MM.values())) * (-1.0, -1.0, 1.0)
    points = dict(zip(AFIDS_RAS_MM, deformation.to_subject(lps), strict=True))
    system = "RAS" if protocol.axes == "RAS" else "LPS"
    write_landmarks(derived / f"sub-{number}_landmarks.mrk.json", points, system)


def _scan(
    head: NDArray[np.float32],
    protocol: Protocol,
    rng: np.random.Generator,
    stretch: float,
    jitter: float,
) -> NDArray[np.uint8]:
    """Turn template values into this scanner's: tissue contrast, coil drift, noise."""
    tissues = np.array(protocol.tissues)
    tissues = tissues.mean() + stretch * (tissues - tissues.mean()) + rng.normal(0, jitter, 3)
    curve = np.interp(np.arange(256), _TEMPLATE_TISSUES, [0.0, *np.clip(tissues, 10, 250)])
    image = curve.astype(np.float32)[np.rint(head).astype(np.uint8)]
    slopes = rng.uniform(-1, 1, 3) * protocol.bias
    for axis, slope in enumerate(slopes):
        shape = [1, 1, 1]
        shape[axis] = -1
        ramp = np.exp(slope * np.linspace(-1, 1, head.shape[axis]))
        image *= ramp.reshape(shape).astype(np.float32)
    image += protocol.noise * rng.standard_normal(image.shape, dtype=np.float32)
    voxels: NDArray[np.uint8] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return voxels


def _middle(grid: Grid) -> NDArray[np.float64]:
    half = (np.array(grid.size) - 1) / 2 * grid.spacing_mm
    middle: NDArray[np.float64] = np.asarray(grid.origin_mm) + grid.direction @ half
    return middle


def _axes(letters: str) -> NDArray[np.float64]:
    """float64[3, 3]: columns are the LPS directions that the letters name."""
    signs = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
    axes = np.zeros((3, 3))
    for column, letter in enumerate(letters):
        row, sign = signs[letter]
        axes[row, column] = sign
    return axes


def _rotation(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Rotation about x, then y, then z (radians)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    rotation: NDArray[np.float64] = about_z @ about_y @ about_x
    return rotation


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", required=True, type=click.IntRange(min=0))
def main(folder: Path, seed: int) -> None:
    """Write the demonstration's data below FOLDER."""
    tell = lambda done, total: click.echo(f"{done} of {total}")  # noqa: E731
    data = write_demo_data(folder, seed, progress=tell)
    write_hospitals(data, folder / "hospitals")


if __name__ == "__main__":
    main()

"""Opening one scan to be judged: what training would be given, seen small.

The image goes through the very reader that training uses, on a coarser grid, so
that what refuses it there refuses it here and with the same words. Of the voxels
only three thumbnails and a digest are kept. All of it stays at the site.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.faults import CutShortError, EmptyImageError
from site_client.imaging.landmarks import read_landmarks
from site_client.imaging.leftovers import better_name
from site_client.imaging.volumes import Geometry, Volume, read_geometry, read_volume
from site_client.imaging.wholeness import require_whole

Level = Literal["bad", "look", "note"]
SIDE: Final = 128
_BLANK_SHARE: Final = 1 / 3
_SUBJECT: Final = re.compile(r"^(sub-[^_]+)")


@dataclass(frozen=True)
class Fault:
    """Something about one scan.

    Attributes:
        kind: in two words, to count by.
        level: ``bad`` stops a plan or must; ``look`` wants a person's eyes; ``note`` is harmless.
        says: what it is, with the evidence.
    """

    kind: str
    level: Level
    says: str


@dataclass(frozen=True, eq=False)
class Cut:
    """A thumbnail through a scan, as radiologists look at it: the patient's right on the left.

    Attributes:
        name: axial, coronal or sagittal.
        pixels: uint8[rows, columns].
        axes: which of x, y, z run along columns and rows.
        upward: whether rows run against their axis.
        level: index of the cut along the third axis.
        letters: at left, right, top and bottom.
    """

    name: str
    pixels: NDArray[np.uint8]
    axes: tuple[int, int]
    upward: bool
    level: float
    letters: tuple[str, str, str, str]


@dataclass(frozen=True, eq=False)
class Scan:
    """One image of the folder with what is known and wrong of it.

    Attributes:
        name: of the case.
        subject: whose it is, by its name.
        image: file, or folder of a series.
        landmark_file: None for an unlabelled image.
        landmarks: name to float64[3], LPS mm.
        geometry: of the file; None where it did not open, as for the three that follow.
        grid: of the thumbnails, without voxels.
        centre_mm: float64[3], the middle of what is bright.
        digest: of the voxels on that grid.
        cuts: thumbnails; none where the image did not open.
        faults: what was seen of this scan alone.
    """

    name: str
    subject: str
    image: Path
    landmark_file: Path | None
    landmarks: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    geometry: Geometry | None = None
    grid: Volume | None = None
    centre_mm: NDArray[np.float64] | None = None
    digest: str = ""
    cuts: tuple[Cut, ...] = ()
    faults: tuple[Fault, ...] = ()

    def __repr__(self) -> str:
        return f"Scan(landmarks={len(self.landmarks)}, faults={len(self.faults)})"

    def with_faults(self, *more: Fault) -> Scan:
        """The same with more faults."""
        return replace(self, faults=(*self.faults, *more))


def open_scan(name: str, image: Path, landmark_file: Path | None, side: int = SIDE) -> Scan:
    """Open one scan; what is wrong with it becomes a fault and never an exception.

    Args:
        name: of the case.
        image: file, or folder of one DICOM series.
        landmark_file: None where there is none.
        side: longest side of a thumbnail, pixels.
    """
    match = _SUBJECT.match(name)
    scan = Scan(name, match[1] if match else name, image, landmark_file)
    scan = _with_landmarks(scan)
    try:
        geometry = read_geometry(image)
        extent = float((geometry.size * geometry.spacing_mm).max())
        volume = read_volume(image, max(extent / side, 1e-6))
    except InputDataError as error:
        return scan.with_faults(_fault_of(image, _first_cause(image, error)))
    scan = replace(
        scan,
        geometry=geometry,
        # One byte that looks like all of them: the shape is needed, the voxels are not.
        grid=replace(volume, voxels=np.broadcast_to(np.uint8(0), volume.voxels.shape)),
        centre_mm=_bright_centre(volume),
        digest=hashlib.blake2b(volume.voxels.tobytes(), digest_size=16).hexdigest(),
        cuts=_cuts(volume, scan.landmarks),
    )
    return scan.with_faults(*_blank(volume))


def _first_cause(image: Path, error: InputDataError) -> InputDataError:
    """A header that cannot be read may just have been cut off: that is said instead."""
    try:
        require_whole(image)
    except InputDataError as deeper:
        return deeper
    return error


def _with_landmarks(scan: Scan) -> Scan:
    if scan.landmark_file is None:
        return scan.with_faults(
            Fault("unlabelled", "look", "no landmark file: left out of training")
        )
    try:
        landmarks = read_landmarks(scan.landmark_file)
    except InputDataError as error:
        return scan.with_faults(Fault("landmarks unreadable", "bad", str(error)))
    if not landmarks:
        says = f"{scan.landmark_file.name} marks nothing: left out of training"
        return scan.with_faults(Fault("unlabelled", "look", says))
    return replace(scan, landmarks=landmarks)


def _fault_of(image: Path, error: InputDataError) -> Fault:
    """The fault that a reader's refusal stands for."""
    if isinstance(error, CutShortError):
        return Fault("cut short", "bad", str(error))
    if isinstance(error, EmptyImageError):
        return Fault("empty", "bad", str(error))
    better = better_name(image) if image.is_file() else None
    if better is not None:
        says = f"{image.name} is no {image.suffix} file by its content: call it {better}"
        return Fault("wrong suffix", "bad", says)
    if image.is_dir() and (slices := _unreadable_slices(image)):
        more = f" and {len(slices) - 5} more" if len(slices) > 5 else ""
        says = f"{error.diagnosis}; its slices {', '.join(slices[:5])}{more} do not open"
        return Fault("unreadable", "bad", says)
    return Fault("unreadable", "bad", str(error))


def _unreadable_slices(folder: Path) -> list[str]:
    """Names of the files of a series that do not open one by one."""
    lost: list[str] = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            sitk.ReadImage(str(path))
        except RuntimeError:
            lost.append(path.name)
    return lost


def _bright_centre(volume: Volume) -> NDArray[np.float64]:
    """float64[3], LPS mm: the middle of the voxels above the mean."""
    bright = volume.voxels > volume.voxels.mean()
    sums = [bright.sum(axis=tuple(k for k in range(3) if k != axis)) for axis in (2, 1, 0)]
    middle = [float((np.arange(len(s)) * s).sum() / max(1, s.sum())) for s in sums]
    return volume.index_to_world(np.array(middle))


def _blank(volume: Volume) -> list[Fault]:
    """Tell whether a large part at one end of the image is one value: a filled copy, or a mask."""
    faults: list[Fault] = []
    for axis, (low, high) in zip((2, 1, 0), (("R", "L"), ("A", "P"), ("I", "S")), strict=True):
        moved = np.moveaxis(volume.voxels, axis, 0).reshape(volume.voxels.shape[axis], -1)
        filled = np.flatnonzero(moved.max(axis=1) != moved.min(axis=1))
        first, last = (int(filled[0]), int(filled[-1])) if filled.size else (len(moved), 0)
        for share, end in ((first / len(moved), low), (1 - (last + 1) / len(moved), high)):
            if share > _BLANK_SHARE:
                says = (
                    f"{share:.0%} of the image at its {_ENDS[end]} end holds a single value: "
                    "was it cut short before it was saved?"
                )
                faults.append(Fault("blank part", "look", says))
    return faults


_ENDS: Final = {"R": "right", "L": "left", "A": "front", "P": "back", "I": "lower", "S": "upper"}


def _cuts(volume: Volume, landmarks: dict[str, NDArray[np.float64]]) -> tuple[Cut, ...]:
    """Three thumbnails through the middle of the landmarks, or of the image."""
    middle = (volume.size - 1) / 2
    if landmarks:
        index = volume.world_to_index(np.array(list(landmarks.values()))).mean(axis=0)
        if ((index >= 0) & (index <= volume.size - 1)).all():
            middle = index
    i, j, k = (int(v) for v in np.rint(middle))
    v = volume.voxels
    return (
        Cut("axial", v[k].copy(), (0, 1), False, k, ("R", "L", "A", "P")),
        Cut("coronal", v[::-1, j].copy(), (0, 2), True, j, ("R", "L", "S", "I")),
        Cut("sagittal", v[::-1, :, i].copy(), (1, 2), True, i, ("A", "P", "S", "I")),
    )

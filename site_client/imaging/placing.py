"""The usual places of a folder's landmarks, and what would bring a scan's odd ones there.

A scan whose landmarks lie elsewhere is tried with the slips that people make: the
other frame (RAS for LPS), voxel indices for millimetres, another unit, a mirrored
image, two names exchanged, a shift. What brings them to where the folder has them
is the likely reason, and both distances are its evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from site_client.imaging.opening import Fault, Scan

_ODD: Final = 3.0
_FLOOR_SHARE: Final = 0.05
_RAS: Final = np.array([-1.0, -1.0, 1.0])
_MIRRORS: Final = (("left and right", 0), ("front and back", 1), ("head and feet", 2))
_SIDES: Final = (
    ("to the left of", "to the right of"),
    ("behind", "in front of"),
    ("above", "below"),
)
Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Norm:
    """The places of landmarks in most scans of a folder.

    Attributes:
        mean_mm: by landmark, float64[3], LPS mm from the reference point.
        by_image: whether that is the middle of the image, or else of what is bright.
        typical_mm: median over scans of their RMS distance from the mean.
        usual_mm: by landmark, the same of it alone, its scan's common shift taken out.
        floor_mm: a distance too small to speak of.
        scans: how many took part.
    """

    mean_mm: Mapping[str, Points]
    by_image: bool
    typical_mm: float
    usual_mm: Mapping[str, float]
    floor_mm: float
    scans: int

    @classmethod
    def of(cls, scans: Sequence[Scan], least: int) -> Self | None:
        """The norm of a folder; None where fewer than ``least`` scans share a landmark."""
        usable = [scan for scan in scans if scan.landmarks and scan.geometry is not None]
        choices = [norm for by in (False, True) if (norm := cls._of(usable, least, by_image=by))]
        return min(choices, key=lambda norm: norm.typical_mm) if choices else None

    @classmethod
    def _of(cls, scans: Sequence[Scan], least: int, *, by_image: bool) -> Self | None:
        gathered: dict[str, list[Points]] = {}
        for scan in scans:
            for name, point in scan.landmarks.items():
                gathered.setdefault(name, []).append(point - _reference(scan, by_image=by_image))
        # The median of coordinates is not moved by the few that are mirrored.
        mean = {n: np.median(p, axis=0) for n, p in gathered.items() if len(p) >= least}
        if not mean:
            return None
        extents = [
            float((s.geometry.size * s.geometry.spacing_mm).max()) for s in scans if s.geometry
        ]
        bare = cls(mean, by_image, 0.0, {}, _FLOOR_SHARE * float(np.median(extents)), len(scans))
        away: list[float] = []
        single: dict[str, list[float]] = {name: [] for name in mean}
        for scan in scans:
            offsets = bare.offsets(scan)
            if offsets:
                away.append(_rms(np.array(list(offsets.values()))))
                middle = np.median(np.array(list(offsets.values())), axis=0)
                for name, offset in offsets.items():
                    single[name].append(float(np.linalg.norm(offset - middle)))
        usual = {name: float(np.median(values)) for name, values in single.items()}
        return cls(mean, by_image, float(np.median(away)), usual, bare.floor_mm, len(scans))

    def reference(self, scan: Scan) -> Points:
        """float64[3], LPS mm: the point of a scan from which positions are taken."""
        return _reference(scan, by_image=self.by_image)

    def offsets(self, scan: Scan) -> dict[str, Points]:
        """Of every known landmark the way from the folder's mean, mm; empty without an image."""
        if scan.geometry is None:
            return {}
        middle = self.reference(scan)
        return {
            n: p - middle - self.mean_mm[n] for n, p in scan.landmarks.items() if n in self.mean_mm
        }

    def distances(self, scan: Scan) -> dict[str, float]:
        """Measure how far every known landmark lies from the folder's mean, mm."""
        return {name: float(np.linalg.norm(way)) for name, way in self.offsets(scan).items()}

    def placed(self, scan: Scan) -> dict[str, Points]:
        """Put each landmark in a scan where the folder's mean would have it, LPS mm."""
        if scan.geometry is None:
            return {}
        return {name: mean + self.reference(scan) for name, mean in self.mean_mm.items()}


def _reference(scan: Scan, *, by_image: bool) -> Points:
    if by_image and scan.geometry is not None:
        return scan.geometry.index_to_world((scan.geometry.size - 1) / 2)
    return np.zeros(3) if scan.centre_mm is None else scan.centre_mm


def _rms(ways: Points) -> float:
    return float(np.sqrt((ways**2).sum(axis=-1).mean()))


@dataclass(frozen=True, eq=False)
class _Try:
    kind: str
    means: str
    points: Points


def explain(scan: Scan, norm: Norm | None, outside: Sequence[str]) -> Fault | None:
    """Explain why a scan's landmarks lie outside its image, or elsewhere than in the others.

    Returns:
        The likely reason; None where nothing is odd, or nothing explains it.
    """
    if scan.geometry is None or not scan.landmarks:
        return None
    names = [name for name in scan.landmarks if norm is None or name in norm.mean_mm]
    points = np.array([scan.landmarks[name] for name in names])
    if norm is None or not names:
        return _by_field_of_view(scan, outside)
    mean = np.array([norm.mean_mm[name] for name in names]) + norm.reference(scan)
    away, fine = _rms(points - mean), max(2 * norm.typical_mm, norm.floor_mm)
    if not outside and away <= max(_ODD * norm.typical_mm, norm.floor_mm):
        return None
    tries = [] if len(names) < 2 else list(_tries(scan, norm, names, points))
    fits = [(_rms(t.points - mean), t) for t in tries]
    fits = [(rms, t) for rms, t in fits if rms <= fine and rms <= away / 2]
    if not fits:
        return _shifted(points - mean, away, fine, outside) or _by_field_of_view(scan, outside)
    best = min(rms for rms, _ in fits)
    # Of slips that fit about as well, the first in the list is the likeliest.
    rms, likely = next((r, t) for r, t in fits if r <= 1.25 * best + 0.1 * norm.floor_mm)
    says = (
        f"{likely.means}: as written the landmarks lie {away:.0f} mm from where the other "
        f"scans have them, so taken {rms:.1f} mm{_order(scan, norm, names, likely)}"
    )
    if outside:
        says += f"; outside the image as written: {', '.join(outside[:8])}"
    return Fault(likely.kind, "bad" if outside else "look", says)


def _tries(scan: Scan, norm: Norm, names: Sequence[str], points: Points) -> Iterator[_Try]:
    """Positions as they would be had one slip not been made, likeliest first."""
    geometry, middle = scan.geometry, norm.reference(scan)
    if geometry is None:
        return
    yield _Try("frame", "looks like RAS written as LPS, or the reverse", points * _RAS)
    for sign in (np.ones(3), _RAS):
        voxels = geometry.index_to_world(points * sign)
        yield _Try("voxel indices", "looks like voxel indices instead of mm", voxels)
    for factor, unit in ((10.0, "centimetres"), (1000.0, "metres"), (0.001, "micrometres")):
        yield _Try("unit", f"looks like {unit} instead of mm", points * factor)
    for what, axis in _MIRRORS:
        turned = points.copy()
        turned[:, axis] = 2 * middle[axis] - turned[:, axis]
        yield _Try("mirrored", f"looks mirrored, {what} exchanged", turned)
    for a, b in combinations(range(len(names)), 2):
        changed = points.copy()
        changed[[a, b]] = changed[[b, a]]
        yield _Try("exchanged", f"'{names[a]}' and '{names[b]}' look exchanged", changed)


def _order(scan: Scan, norm: Norm, names: Sequence[str], likely: _Try) -> str:
    """For a mirrored scan: two landmarks whose order contradicts the others."""
    axes = [axis for what, axis in _MIRRORS if likely.kind == "mirrored" and what in likely.means]
    axes = [0, 1] if likely.kind == "frame" else axes
    for axis in axes:
        pairs = [
            (float(norm.mean_mm[a][axis] - norm.mean_mm[b][axis]), a, b)
            for a, b in combinations(names, 2)
        ]
        gap, a, b = max(pairs, key=lambda pair: abs(pair[0]))
        difference = float(scan.landmarks[a][axis] - scan.landmarks[b][axis])
        if abs(gap) > norm.floor_mm and difference * gap < 0:
            here, there = _SIDES[axis] if difference > 0 else _SIDES[axis][::-1]
            return f"; '{a}' lies {here} '{b}' here, {there} it in the others"
    return ""


def _shifted(ways: Points, away: float, fine: float, outside: Sequence[str]) -> Fault | None:
    """All landmarks moved by the same way."""
    shift = ways.mean(axis=0)
    rest = _rms(ways - shift)
    if rest > fine or rest > away / 2 or len(ways) < 2:
        return None
    axis = int(np.abs(shift).argmax())
    towards = (("left", "right"), ("back", "front"), ("head", "feet"))[axis][int(shift[axis] < 0)]
    says = (
        f"looks shifted by {float(np.linalg.norm(shift)):.0f} mm, mostly to the {towards}: "
        f"moved back, the landmarks lie {rest:.1f} mm from where the other scans have them"
    )
    if outside:
        says += f"; outside the image: {', '.join(outside[:8])}"
    return Fault("shifted", "bad" if outside else "look", says)


def _by_field_of_view(scan: Scan, outside: Sequence[str]) -> Fault | None:
    """Explain landmarks outside the image where there is no folder to compare with."""
    geometry = scan.geometry
    if geometry is None or not outside:
        return None
    names = ", ".join(outside[:8])
    every = np.array(list(scan.landmarks.values()))
    if geometry.contains(every * _RAS).all():
        says = f"outside the image: {names}; with the signs of x and y reversed they lie inside"
        return Fault("frame", "bad", f"{says}: is it RAS written as LPS, or the reverse?")
    for sign in (np.ones(3), _RAS):
        index = every * sign
        if ((index >= -0.5) & (index <= geometry.size - 0.5)).all():
            says = f"outside the image: {names}; they look like voxel indices instead of mm"
            return Fault("voxel indices", "bad", says)
    return None

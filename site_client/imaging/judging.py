"""Comparing the scans of a folder with one another: which one is not like the rest, and how.

Pure arithmetic on positions and headers; nothing is opened here. A folder's own
majority is the only truth there is, so a verdict says "looks" and shows its evidence.
Positions are taken relative to the middle of the head (what is bright) or of the
image, whichever agrees better within the folder. Nothing here leaves the site.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from site_client.imaging.opening import Fault, Level, Scan
from site_client.imaging.placing import Norm, explain

_LEAST_SCANS: Final = 3
_WILD: Final = 2.5
_SAME_MM: Final = 1e-6
_FAR: Final = 4.0
_PASSES: Final = 4


@dataclass(frozen=True, eq=False)
class Judgement:
    """The scans of a folder, judged.

    Attributes:
        scans: in the order given, with every fault.
        distances_mm: by case and landmark, how far from the folder's mean; empty where fewer
            than three scans have a landmark.
        means_mm: by case and landmark, LPS mm, where the folder's mean would put it in this scan.
        typical_mm: how far scans usually lie from the mean; NaN where nothing was compared.
    """

    scans: tuple[Scan, ...]
    distances_mm: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    means_mm: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    typical_mm: float = float("nan")


def judge(scans: Sequence[Scan], planned: Sequence[str] = ()) -> Judgement:
    """Add to every scan what only shows beside the others.

    Args:
        scans: opened.
        planned: landmarks that a plan asks for; empty compares names with the folder's own.
    """
    more: dict[str, list[Fault]] = {scan.name: [] for scan in scans}
    _judge_names(scans, planned, more)
    _judge_headers(scans, more)
    _judge_copies(scans, more)
    norm = _norm(scans)
    for scan in scans:
        outside = _outside(scan)
        reason = explain(scan, norm, outside)
        if reason is not None:
            more[scan.name].append(reason)
        elif outside:
            names = ", ".join(outside[:8])
            more[scan.name].append(Fault("outside", "bad", f"outside the image: {names}"))
        elif norm is not None:
            more[scan.name] += _far_off(scan, norm)
    judged = tuple(scan.with_faults(*more[scan.name]) for scan in scans)
    if norm is None:
        return Judgement(judged)
    return Judgement(
        judged,
        {scan.name: norm.distances(scan) for scan in scans if scan.landmarks},
        {scan.name: norm.placed(scan) for scan in scans if scan.landmarks},
        norm.typical_mm,
    )


def _norm(scans: Sequence[Scan]) -> Norm | None:
    """Find where landmarks usually lie, without the scans that it shows to be odd.

    Leaving these out makes the norm narrower and may show more; it ends where nothing
    new is shown, or where fewer than half of the scans would be left to go by.
    """
    labelled = [scan for scan in scans if scan.landmarks and scan.geometry is not None]
    trusted = labelled
    norm = Norm.of(trusted, _LEAST_SCANS)
    for _ in range(_PASSES):
        fine = [
            scan
            for scan in labelled
            if not (outside := _outside(scan)) and explain(scan, norm, outside) is None
        ]
        if len(fine) == len(trusted) or len(fine) < max(_LEAST_SCANS, len(labelled) / 2):
            break
        narrower = Norm.of(fine, _LEAST_SCANS)
        if narrower is None:
            break
        trusted, norm = fine, narrower
    return norm


def _outside(scan: Scan) -> list[str]:
    """Names of landmarks that are not in the image."""
    if scan.geometry is None:
        return []
    geometry = scan.geometry
    return [name for name, p in scan.landmarks.items() if not bool(geometry.contains(p))]


def _far_off(scan: Scan, norm: Norm) -> list[Fault]:
    """Single landmarks that lie elsewhere than in the others, the scan as a whole taken out."""
    offsets = norm.offsets(scan)
    if len(offsets) < 3:
        return []
    middle = np.median(np.array(list(offsets.values())), axis=0)
    away = {name: float(np.linalg.norm(offset - middle)) for name, offset in offsets.items()}
    far = [n for n, mm in away.items() if mm > max(_FAR * norm.usual_mm[n], norm.floor_mm)]
    if not far:
        return []
    far.sort(key=lambda name: -away[name])
    words = [f"'{n}' by {away[n]:.0f} mm (usual {norm.usual_mm[n]:.1f})" for n in far[:5]]
    more = f" and {len(far) - 5} more" if len(far) > 5 else ""
    says = f"elsewhere than in the other scans: {', '.join(words)}{more}"
    if 2 * len(far) > len(offsets):
        says += "; so many that the image itself may be of another size, age or kind"
    return [Fault("far off", "look", says)]


def _judge_names(
    scans: Sequence[Scan], planned: Sequence[str], more: dict[str, list[Fault]]
) -> None:
    labelled = [scan for scan in scans if scan.landmarks]
    counts = Counter(name for scan in labelled for name in scan.landmarks)
    level: Level = "bad" if planned else "look"
    usual = list(planned) or [name for name, count in counts.items() if 2 * count > len(labelled)]
    for scan in labelled:
        lacking = [name for name in usual if name not in scan.landmarks]
        if not lacking:
            continue
        spare = [name for name in scan.landmarks if name not in usual]
        words = [f"'{name}'{_instead(name, spare)}" for name in lacking[:8]]
        if len(lacking) > 8:
            words.append(f"{len(lacking) - 8} more")
        who = "the plan asks for" if planned else "the other scans have"
        says = f"lacks what {who}: {', '.join(words)}"
        more[scan.name].append(Fault("names", level, says))


def _instead(name: str, spare: Sequence[str]) -> str:
    near = nearest_name(name, spare)
    return "" if near is None else f" (has '{near}': is it that?)"


def nearest_name(name: str, choices: Sequence[str]) -> str | None:
    """The choice that is spelt most like a name, or None; case and punctuation do not count."""
    plain = {re.sub(r"[\W_]+", "", choice).casefold(): choice for choice in reversed(choices)}
    matches = difflib.get_close_matches(re.sub(r"[\W_]+", "", name).casefold(), plain, 1, 0.6)
    return plain[matches[0]] if matches else None


def _judge_headers(scans: Sequence[Scan], more: dict[str, list[Fault]]) -> None:
    """Spacing, extent and orientation against the folder's median and majority."""
    opened = [(scan, scan.geometry) for scan in scans if scan.geometry is not None]
    if len(opened) < _LEAST_SCANS:
        return
    spacings = np.array([np.sort(geometry.spacing_mm) for _, geometry in opened])
    extents = np.array([np.sort(geometry.spacing_mm * geometry.size) for _, geometry in opened])
    codes = [orientation(geometry.direction) for _, geometry in opened]
    most, count = Counter(codes).most_common(1)[0]
    for (scan, _), spacing, extent, code in zip(opened, spacings, extents, codes, strict=True):
        for what, value, usual in (
            ("spacing", spacing, np.median(spacings, axis=0)),
            ("extent", extent, np.median(extents, axis=0)),
        ):
            ratio = value / usual
            if (ratio > _WILD).any() or (ratio < 1 / _WILD).any():
                says = f"{what} {_by(value)} mm; the others have about {_by(usual)} mm"
                more[scan.name].append(Fault(what, "look", says))
        if code != most and 2 * count > len(codes):
            says = (
                f"stored as {code}, {count} of {len(codes)} as {most}: harmless where the header "
                "is right, mirrored where it is not; look at the picture"
            )
            more[scan.name].append(Fault("orientation", "note", says))


def orientation(direction: NDArray[np.float64]) -> str:
    """Name where the x, y and z index grow to, as letters: ``LPS`` for the identity."""
    letters = ""
    for column in np.asarray(direction).T:
        axis = int(np.abs(column).argmax())
        letters += ("LPS" if column[axis] > 0 else "RAI")[axis]
    return letters


def _by(lengths: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)


def _judge_copies(scans: Sequence[Scan], more: dict[str, list[Fault]]) -> None:
    """The same image twice, the same positions in two images, one subject under two spellings."""
    images: dict[str, str] = {}
    marks: dict[bytes, str] = {}
    subjects: dict[str, str] = {}
    for scan in scans:
        if scan.digest:
            first = images.setdefault(scan.digest, scan.name)
            if first != scan.name:
                says = f"the same image as {first}: one of them would count twice"
                more[scan.name].append(Fault("duplicate", "look", says))
        if len(scan.landmarks) > 1:
            points = np.array([scan.landmarks[name] for name in sorted(scan.landmarks)])
            first = marks.setdefault(np.rint(points / _SAME_MM).tobytes(), scan.name)
            if first != scan.name and scan.digest != _digest_of(scans, first):
                says = f"the very same positions as in {first}, which is another image"
                more[scan.name].append(Fault("copied landmarks", "look", says))
        plain = re.sub(r"0+(?=\d)", "", re.sub(r"[\W_]+", "", scan.subject)).casefold()
        first = subjects.setdefault(plain, scan.subject)
        if first != scan.subject:
            says = f"subject {scan.subject} looks like {first}, spelt differently"
            more[scan.name].append(Fault("duplicate", "look", says))


def _digest_of(scans: Sequence[Scan], name: str) -> str:
    return next(scan.digest for scan in scans if scan.name == name)

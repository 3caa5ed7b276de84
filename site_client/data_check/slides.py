"""Every slide of a site that serves pixels, read to its end; nothing of it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.errors import InputDataError
from site_client.imaging.faults import CutShortError
from site_client.imaging.opening import Fault
from site_client.imaging.wholeness import require_whole


@dataclass(frozen=True)
class ReviewedSlide:
    """One slide.

    Attributes:
        name: its file or folder.
        shape: rows, columns, bands; None where it did not open.
        digest: of its values.
        faults: what is wrong with it.
    """

    name: str
    shape: tuple[int, int, int] | None
    digest: str
    faults: tuple[Fault, ...]


def review_slides(
    paths: Sequence[Path],
    bands: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[ReviewedSlide, ...]:
    """Read every slide to its end.

    Args:
        paths: of the slides.
        bands: that a plan asks for; empty takes every band of each.
        progress: called with (what is being done, slides read, slides in all).
    """
    slides: list[ReviewedSlide] = []
    for path in paths:
        slides.append(_review(path, bands))
        if progress is not None:
            progress("reading every slide", len(slides), len(paths))
    first: dict[str, str] = {}
    for k, slide in enumerate(slides):
        original = first.setdefault(slide.digest, slide.name) if slide.digest else slide.name
        if original != slide.name:
            fault = Fault("duplicate", "look", f"the same pixels as {original}")
            slides[k] = replace(slide, faults=(*slide.faults, fault))
    return tuple(slides)


def _review(path: Path, bands: Sequence[str]) -> ReviewedSlide:
    from site_client.pixels.slides import open_every_band, open_slide

    digest = hashlib.blake2b(digest_size=16)
    try:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            require_whole(file)
        slide = open_slide(path, bands) if bands else open_every_band(path)
        low = np.full(slide.shape[2], np.inf)
        high = -low
        finite = True
        for chunk in slide.chunks():
            digest.update(chunk.tobytes())
            finite = finite and bool(np.isfinite(chunk).all())
            low, high = np.minimum(low, chunk.min(axis=0)), np.maximum(high, chunk.max(axis=0))
    except CutShortError as error:
        return ReviewedSlide(path.name, None, "", (Fault("cut short", "bad", str(error)),))
    except InputDataError as error:
        return ReviewedSlide(path.name, None, "", (Fault("unreadable", "bad", str(error)),))
    faults: list[Fault] = []
    constant = [name for name, flat in zip(slide.bands, low == high, strict=True) if flat]
    if not finite:
        faults.append(Fault("unreadable", "bad", "holds NaN or infinity"))
    if len(constant) == len(slide.bands):
        faults.append(Fault("empty", "bad", "one value everywhere"))
    elif constant:
        more = f" and {len(constant) - 8} more" if len(constant) > 8 else ""
        says = f"bands of a single value: {', '.join(constant[:8])}{more}"
        faults.append(Fault("empty band", "look", says))
    return ReviewedSlide(path.name, slide.shape, digest.hexdigest(), tuple(faults))

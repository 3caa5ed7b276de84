"""Every image of a folder opened and judged: what ``cairn-site check --data`` tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from common.cli import counted
from common.errors import ExitCode, InputDataError
from site_client.data_check.slides import ReviewedSlide
from site_client.facts import Fact
from site_client.imaging.folders import Listing, list_folder
from site_client.imaging.judging import Judgement, judge
from site_client.imaging.leftovers import Inventory, take_inventory
from site_client.imaging.opening import Fault, Level, Scan, open_scan

Progress = Callable[[str, int, int], None]
_LEVELS: Final[tuple[Level, ...]] = ("bad", "look", "note")


@dataclass(frozen=True, eq=False)
class Review:
    """The findings in a data folder.

    Attributes:
        folder: the folder.
        listing: its images; None where it holds none, or slides.
        inventory: what is taken and what is left lying.
        judgement: of the scans.
        slides: of a site that serves pixels.
        wanted: landmarks that the plan asks for; empty without a plan.
        faults: of the folder as a whole.
        held_out: names of the scans that are kept out of training.
    """

    folder: Path
    listing: Listing | None = None
    inventory: Inventory | None = None
    judgement: Judgement = field(default_factory=lambda: Judgement(()))
    slides: tuple[ReviewedSlide, ...] = ()
    wanted: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    held_out: frozenset[str] = frozenset()

    @property
    def scans(self) -> tuple[Scan, ...]:
        """Every scan, those with the gravest faults first, then by name."""
        return tuple(sorted(self.judgement.scans, key=lambda s: (gravest(s.faults), s.name)))

    @property
    def named_faults(self) -> tuple[tuple[str, Fault], ...]:
        """(file or case, fault), gravest first."""
        every = [("", fault) for fault in self.faults]
        every += [(scan.name, fault) for scan in self.scans for fault in scan.faults]
        every += [(slide.name, fault) for slide in self.slides for fault in slide.faults]
        return tuple(sorted(every, key=lambda item: _LEVELS.index(item[1].level)))

    @property
    def fact(self) -> Fact:
        """The whole in one line."""
        counts = Counter(f.kind for _, f in self.named_faults if f.level != "note")
        opened = len(self.slides) or len(self.judgement.scans)
        what = "slide" if self.slides else "scan"
        says = f"{counted(opened, what)} looked at"
        says += "".join(f", {count} {kind}" for kind, count in counts.most_common())
        level = gravest([fault for _, fault in self.named_faults])
        if level >= _LEVELS.index("note"):
            return Fact("every image", "ok", says if counts else f"{says}, nothing wrong")
        fix = "Each is named below; a page with pictures: cairn-site check --data -o data.html"
        if level == 0:
            return Fact("every image", "bad", says, fix, ExitCode.BAD_INPUT)
        return Fact("every image", "warning", says, fix)

    def as_dict(self) -> dict[str, object]:
        """For ``--json``; no position and no pixel is in it."""
        inventory = self.inventory
        return {
            "folder": str(self.folder),
            "layout": None if self.listing is None else self.listing.layout,
            "takes": {} if inventory is None else dict(inventory.takes),
            "leaves_out": [
                {"what": leaf.what, "count": leaf.count, "why": leaf.why}
                for leaf in (() if inventory is None else inventory.leaves)
            ],
            "faults": [asdict(fault) for fault in self.faults],
            "scans": [self._scan_dict(scan) for scan in self.judgement.scans],
            "slides": [
                {
                    "name": slide.name,
                    "shape": None if slide.shape is None else list(slide.shape),
                    "faults": [asdict(fault) for fault in slide.faults],
                }
                for slide in self.slides
            ],
        }

    def _scan_dict(self, scan: Scan) -> dict[str, object]:
        geometry = scan.geometry
        distances = self.judgement.distances_mm.get(scan.name, {})
        return {
            "name": scan.name,
            "file": str(scan.image),
            "subject": scan.subject,
            "opened": geometry is not None,
            "size": None if geometry is None else geometry.size.tolist(),
            "spacing_mm": None if geometry is None else geometry.spacing_mm.tolist(),
            "landmarks": len(scan.landmarks),
            "held_out": scan.name in self.held_out,
            "from_mean_mm": {name: round(value, 2) for name, value in distances.items()},
            "faults": [asdict(fault) for fault in scan.faults],
        }


def gravest(faults: Sequence[Fault]) -> int:
    """0 for bad, 1 for look, 2 for note, 3 for nothing."""
    return min((_LEVELS.index(fault.level) for fault in faults), default=len(_LEVELS))


def review_scans(
    folder: Path, wanted: Sequence[str] = (), progress: Progress | None = None, side: int = 0
) -> Review:
    """Open and judge every scan of a folder, labelled or not.

    Args:
        folder: the site's data.
        wanted: landmarks that a plan asks for.
        progress: called with (what is being done, scans opened, scans in all).
        side: of thumbnails, pixels; 0 for what fits that many scans.

    Raises:
        InputDataError: no such folder, or no images in it.
    """
    listing = list_folder(folder)
    inventory = take_inventory(listing)
    every: list[tuple[str, Path, Path | None]] = sorted(
        [*listing.cases, *((name, image, None) for name, image in listing.unlabelled)],
        key=lambda item: item[:2],
    )
    scans: list[Scan] = []
    for name, image, marks in every:
        scans.append(open_scan(name, image, marks, side or thumbnail_side(len(every))))
        if progress is not None:
            progress("opening every image", len(scans), len(every))
    return Review(
        folder,
        listing,
        inventory,
        judge(scans, wanted),
        wanted=tuple(wanted),
        faults=_of_folder(listing, inventory),
    )


def thumbnail_side(scans: int) -> int:
    """Longest side of a thumbnail in pixels: smaller where there are many."""
    return 160 if scans <= 60 else 128 if scans <= 200 else 96


def _of_folder(listing: Listing, inventory: Inventory) -> tuple[Fault, ...]:
    """List what is wrong with names: nothing of it needs an image opened."""
    faults = [
        Fault("wrong suffix", "look", f"{path} is {content} by its content: call it {better}")
        for path, content, better in inventory.misnamed
    ]
    faults += [
        Fault("two of a name", "bad", f"two images are called {name}") for name in listing.twice
    ]
    faults += [
        Fault("no image", "look", f"{path} belongs to no image that is taken")
        for path in inventory.orphans
    ]
    if not inventory.complete:
        says = f"only the first {sum(n for _, n in inventory.takes)} images and their surroundings"
        faults.append(Fault("large folder", "note", f"not every file was looked at: {says}"))
    return tuple(faults)


def empty_review(folder: Path, error: InputDataError) -> Review:
    """A folder that cannot even be listed."""
    return Review(folder, faults=(Fault("no images", "bad", str(error)),))

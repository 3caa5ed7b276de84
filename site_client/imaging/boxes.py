"""True boxes of images, from label images beside them or from one table of all.

A table has the columns ``case,label,x0,y0[,z0],x1,y1[,z1]``. In mm these are two
corners (of a volume in the frame that the file says, of a picture from the middle
of its first pixel); as voxels they are the first and the last voxel of the box,
both inside. A row whose corners are empty says that its image has no box. Errors
name file, case and label, never a position.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.label_images import (
    LabelledBox,
    boxes_in_picture,
    boxes_in_volume,
    turned_boxes_in_picture,
)
from site_client.imaging.landmarks import landmarks_from_frame
from site_client.imaging.listfiles import CaseFiles, is_list, read_list, stem
from site_client.imaging.planar import Picture
from site_client.imaging.table_rows import (
    CASE_COLUMNS,
    FRAMES,
    UNITS,
    Frame,
    Unit,
    agreed,
    case_of,
    check_width,
    column_of,
    read_rows,
)
from site_client.imaging.volumes import Volume, read_geometry

LABEL_ENDINGS: Final = ("_label", "_labels", "_seg", "_dseg", "_mask", "-label", ".seg")
_LABEL_COLUMNS: Final = ("label", "class", "name")
_CORNER = re.compile(r"^([xyz])([01])(?:_(\w+))?$")


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one image.

    Attributes:
        labels: of each.
        corners_mm: float64[boxes, 2, d], lower and upper; LPS mm in volumes, mm from the middle
            of the first pixel in pictures.
    """

    labels: tuple[str, ...]
    corners_mm: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"Boxes({len(self.labels)})"


@dataclass(frozen=True, eq=False)
class TurnedBoxes:
    """The turned boxes of one picture.

    Attributes:
        labels: of each.
        rectangles_mm: float64[boxes, 5], middle x and y (mm from the middle of the first pixel),
            longer and shorter side (mm), angle of the longer one from x to y (radians).
    """

    labels: tuple[str, ...]
    rectangles_mm: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"TurnedBoxes({len(self.labels)})"


@dataclass(frozen=True)
class BoxTable:
    """The boxes of many images, as one file states them.

    Attributes:
        path: the file.
        unit: of every corner.
        frame: of corners in mm of a volume; None when the file does not say.
        cases: case name to its labelled boxes, as written.
    """

    path: Path
    unit: Unit
    frame: Frame | None
    cases: dict[str, list[LabelledBox]]

    def of(self, case: str) -> list[LabelledBox]:
        """The boxes of one image.

        Raises:
            InputDataError: the table does not have it.
        """
        if case not in self.cases:
            raise InputDataError(
                "an image is not in the table of boxes",
                field=f"{self.path}: {case}",
                expected="a row of that name",
                got=f"{len(self.cases)} other images",
                advice="A row with empty corners says that an image has no box",
            )
        return self.cases[case]


def read_box_table(path: Path, *, unit: Unit | None = None, frame: Frame | None = None) -> BoxTable:
    """A CSV file with the boxes of many images; other columns are not looked at.

    Args:
        path: the file.
        unit: of the corners, where the file does not say.
        frame: of corners in mm, where the file does not say.

    Raises:
        InputDataError: unreadable, no unit, a malformed row or box; names case and label.
    """
    said, rows = read_rows(path)
    unit = agreed(said.get("unit"), unit, f"{path}: unit", UNITS)
    frame = agreed(said.get("coordinateSystem"), frame, f"{path}: coordinateSystem", FRAMES)
    header = [cell.strip() for cell in rows[0]] if rows else []
    case_at, label_at = column_of(header, CASE_COLUMNS), column_of(header, _LABEL_COLUMNS)
    corners = {
        m[1] + m[2]: (k, m[3]) for k, h in enumerate(header) if (m := _CORNER.match(h.lower()))
    }
    axes = "xyz" if "z0" in corners else "xy"
    columns = [axis + end for end in "01" for axis in axes]
    units = {word for _, word in corners.values()}
    if case_at is None or label_at is None or set(corners) != set(columns) or len(units) != 1:
        raise InputDataError(
            "the table's columns are not understood",
            field=str(path),
            expected="case,label,x0,y0[,z0],x1,y1[,z1], the corners with one unit such as x0_mm",
            got=f"{len(header)} columns",
        )
    unit = agreed(units.pop(), unit, f"{path}: unit", UNITS)
    if unit is None:
        raise InputDataError(
            "the table does not say its unit",
            field=str(path),
            expected="columns such as x0_mm, a line '# unit = mm', or the option",
            got="neither",
        )
    cases: dict[str, list[LabelledBox]] = {}
    for row in rows[1:]:
        check_width(path, header, row)
        case, label = case_of(row[case_at]), row[label_at].strip()
        boxes = cases.setdefault(case, [])
        cells = [row[corners[name][0]].strip() for name in columns]
        if any(cells):
            boxes.append((label, _corners(cells, f"{path}: case {case}, label {label}", unit)))
    return BoxTable(path, unit, frame, cases)


def _corners(cells: Sequence[str], where: str, unit: Unit) -> NDArray[np.float64]:
    """float64[2, d]: of voxels the outer faces."""
    try:
        corners = np.array([float(cell) for cell in cells], dtype=np.float64).reshape(2, -1)
    except ValueError:
        corners = np.full((2, 2), np.nan)
    if unit == "voxel":
        corners = corners + np.array([[-0.5], [0.5]])
    if not np.isfinite(corners).all() or not (corners[0] < corners[1]).all():
        raise InputDataError(
            "a box is none", field=where, expected="numbers, each first corner below the second"
        )
    return corners


def find_label_images(files: Sequence[CaseFiles], place: Path | None) -> dict[str, Path]:
    """The label image of each case that has one, by the case's name.

    Args:
        files: the images, label images not among them.
        place: a folder of label images, a list of them line by line, or the label image of a
            single image; None looks beside the images.

    Raises:
        InputDataError: a list of another length.
    """
    if place is not None and place.is_file():
        images = read_list(place) if is_list(place) else [place]
        if len(images) != len(files):
            raise InputDataError(
                "the two lists differ in length",
                field=str(place),
                expected=f"{len(files)} label images, one per image",
                got=str(len(images)),
            )
        return {case.name: image for case, image in zip(files, images, strict=True)}
    label_images: dict[str, Path] = {}
    for case in files:
        folder = case.image.parent if place is None else place
        case_stem = stem(case.image) or case.image.name
        names = [case_stem + ending for ending in LABEL_ENDINGS] + (
            [case_stem] if place is not None else []
        )
        choices = {stem(path): path for path in sorted(folder.glob(f"{_literal(case_stem)}*"))}
        image = next((choices[name] for name in names if name in choices), None)
        if image is not None:
            label_images[case.name] = image
    return label_images


def without_label_images(files: Sequence[CaseFiles]) -> list[CaseFiles]:
    """The images that are not the label image of another one of them."""
    names = {case.name for case in files}
    return [case for case in files if not _is_label_image(case.name, names)]


def _is_label_image(name: str, names: set[str]) -> bool:
    return any(name.endswith(e) and name[: -len(e)] in names for e in LABEL_ENDINGS)


def _literal(name: str) -> str:
    """A name in which no character is a pattern of its own."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def boxes_of_volume(
    case: CaseFiles, truth: Path | BoxTable, volume: Volume, least_voxels: int
) -> Boxes:
    """The boxes of a volume.

    Raises:
        InputDataError: unreadable, or a box outside the volume; names case and label.
    """
    if isinstance(truth, BoxTable):
        placed = [(label, _in_world(case, truth, box)) for label, box in truth.of(case.name)]
    else:
        placed = boxes_in_volume(truth, least_voxels)
    slack = volume.spacing_mm / 2 + 1e-6
    last = volume.index_to_world((volume.size - 1).astype(np.float64))
    first = np.array(volume.origin_mm)
    for label, box in placed:
        # The volume's grid is along LPS; its outer voxels may be thicker in the file.
        middle = box.mean(axis=0)
        if (middle < first - slack).any() or (middle > last + slack).any():
            raise _outside(case, label, "Check the coordinate system (LPS or RAS) and the unit")
    return _gathered(placed, 3)


def boxes_of_picture(
    case: CaseFiles, truth: Path | BoxTable, picture: Picture, least_voxels: int
) -> Boxes:
    """The boxes of a picture.

    Raises:
        InputDataError: unreadable, or a box outside the picture; names case and label.
    """
    if isinstance(truth, BoxTable):
        boxes = truth.of(case.name)
        pixels = truth.unit == "voxel"
    else:
        boxes, pixels = boxes_in_picture(truth, case.image, least_voxels), True
    placed: list[LabelledBox] = []
    for label, box in boxes:
        flat = box[:, :2]
        placed.append((label, picture.from_pixels(flat) if pixels else flat))
        if not picture.contains(placed[-1][1].mean(axis=0)):
            raise _outside(case, label, "Check the unit and the size of the pixels")
    return _gathered(placed, 2)


def turned_boxes_of_picture(
    case: CaseFiles, truth: Path, picture: Picture, least_voxels: int
) -> TurnedBoxes:
    """The turned boxes of a picture, from its label image.

    Raises:
        InputDataError: unreadable, or of another size than the picture.
    """
    found = turned_boxes_in_picture(truth, case.image, picture.file_spacing_mm, least_voxels)
    rectangles = [rectangle for _, rectangle in found]
    return TurnedBoxes(
        tuple(label for label, _ in found),
        np.stack(rectangles) if rectangles else np.empty((0, 5)),
    )


def _in_world(case: CaseFiles, table: BoxTable, box: NDArray[np.float64]) -> NDArray[np.float64]:
    """A row's corners as lower and upper LPS corner."""
    if box.shape[1] != 3:
        raise InputDataError(
            "a box of a volume needs z0 and z1", field=f"{table.path}: {case.name}"
        )
    if table.unit == "mm":
        named = {"0": box[0], "1": box[1]}
        signed = np.stack(list(landmarks_from_frame(named, table.frame, table.path).values()))
    else:
        picks = np.array(list(np.ndindex(2, 2, 2)))
        signed = read_geometry(case.image).index_to_world(box[picks, np.arange(3)])
    return np.stack([signed.min(axis=0), signed.max(axis=0)])


def _outside(case: CaseFiles, label: str, advice: str) -> InputDataError:
    return InputDataError(
        "a box lies outside the image",
        field=f"{case.name}: label {label}",
        expected="its middle within the image",
        advice=advice,
    )


def _gathered(placed: Sequence[LabelledBox], d: int) -> Boxes:
    corners = [box for _, box in placed]
    return Boxes(
        tuple(label for label, _ in placed),
        np.stack(corners) if corners else np.empty((0, 2, d)),
    )

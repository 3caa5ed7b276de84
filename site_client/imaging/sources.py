"""Find files: which images there are, what is known of each, which subjects are held out.

No image is opened here, but landmark files, tables and label images are, for the
names in them. A split never tears a subject apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from common.errors import InputDataError
from site_client.imaging.boxes import (
    LABEL_ENDINGS,
    BoxTable,
    find_label_images,
    read_box_table,
    without_label_images,
)
from site_client.imaging.curves import CurveTable, read_curve_table
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.landmark_tables import (
    LandmarkTable,
    read_landmark_table,
    read_voxel_lines,
)
from site_client.imaging.landmarks import read_landmarks
from site_client.imaging.listfiles import (
    LIST_SUFFIX,
    TABLE_SUFFIX,
    CaseFiles,
    find_files,
    is_list,
    require_landmarks,
)


@dataclass(frozen=True)
class Source:
    """Found files, not opened yet.

    Attributes:
        files: of each case.
        table: the landmarks of all of them, where one file has them.
        line_names: of landmarks in files without names.
        pixel_mm: of files that do not say it; None when none was given.
        boxes: the boxes of all of them, where one file has them.
        partners: by case name the label image, or for registration the moving image.
        curves: the curves of all of them, where one file has them.
    """

    files: tuple[CaseFiles, ...]
    table: LandmarkTable | None
    line_names: tuple[str, ...]
    pixel_mm: float | None
    boxes: BoxTable | None = None
    partners: Mapping[str, Path] = field(default_factory=dict)
    curves: CurveTable | None = None

    def only(self, subjects: set[str]) -> Source:
        """Keep the cases of some subjects."""
        return replace(self, files=tuple(f for f in self.files if f.subject in subjects))

    def with_landmarks(self) -> Source:
        """Keep the cases that have landmarks, in files of their own or in the table."""
        table = self.table
        return replace(
            self,
            files=tuple(
                each
                for each in self.files
                if (each.landmarks is not None if table is None else table.of(each.name))
            ),
        )

    def with_boxes(self) -> Source:
        """Keep the cases that have boxes, in a label image or in the table."""
        table = self.boxes
        return replace(
            self,
            files=tuple(
                each
                for each in self.files
                if (each.name in self.partners if table is None else table.of(each.name))
            ),
        )

    def with_curves(self) -> Source:
        """Keep the cases that have a file beside the image, or rows in the table of curves."""
        table = self.curves
        return replace(
            self,
            files=tuple(
                each
                for each in self.files
                if (each.landmarks is not None if table is None else each.name in table.cases)
            ),
        )


@dataclass(frozen=True)
class Wanted:
    """Images, and where what is known of them is.

    Attributes:
        images: folders, files, lists.
        truth: where landmarks or boxes are; "" looks beside the images.
        moving: for registration, where the moving images are; "" for the images themselves.
        need_truth: refuse images of which nothing is known.
    """

    images: tuple[Path, ...]
    truth: str = ""
    moving: str = ""
    need_truth: bool = True

    def place(self, known: str) -> Path | None:
        """Give the place of the truths, if there is one of its own.

        Raises:
            InputDataError: it does not exist.
        """
        place = Path(self.truth) if self.truth else None
        if place is not None and not place.exists():
            raise InputDataError(f"no such {known}", field=str(place), got="nothing there")
        return place


def landmark_files(sought: Wanted, data: DataSettings) -> Source:
    """Find images and their landmarks, beside them, in a folder, a list or a table.

    Raises:
        InputDataError: nothing there, no landmarks, or a table that cannot be read.
    """
    place, table = sought.place("landmarks"), None
    if place is not None and place.name.lower().endswith(TABLE_SUFFIX):
        table = read_landmark_table(
            place,
            unit=data.unit or None,
            frame=data.coordinate_system or None,
            names=data.names,
        )
    files = find_files(sought.images, place, subject=data.subject)
    if sought.need_truth and table is None:
        require_landmarks(files)
    return Source(tuple(files), table, data.names, data.pixel_mm or None)


def curve_files(sought: Wanted, data: DataSettings) -> Source:
    """Find images and their curves, beside them, in a folder, a list or a table.

    Raises:
        InputDataError: nothing there, no curves, or a table that cannot be read.
    """
    place, table = sought.place("curves"), None
    if place is not None and place.name.lower().endswith(TABLE_SUFFIX):
        table = read_curve_table(
            place, unit=data.unit or None, frame=data.coordinate_system or None
        )
    files = find_files(sought.images, place, subject=data.subject)
    source = Source(tuple(files), None, (), data.pixel_mm or None, curves=table)
    if sought.need_truth and table is None:
        require_landmarks(files)
    if sought.need_truth and len(source.with_curves().files) < len(files):
        raise InputDataError(
            "images without curves", field=str(place), expected="rows of every image's name"
        )
    return source


def box_files(sought: Wanted, data: DataSettings) -> Source:
    """Find images and their boxes: a label image of each, or one table.

    Raises:
        InputDataError: nothing there, images without boxes, or a table that cannot be read.
    """
    place = sought.place("boxes")
    files = without_label_images(find_files(sought.images, subject=data.subject))
    source = Source(tuple(files), None, (), data.pixel_mm or None)
    if place is not None and place.name.lower().endswith(TABLE_SUFFIX):
        table = read_box_table(place, unit=data.unit or None, frame=data.coordinate_system or None)
        return replace(source, boxes=table)
    label_images = find_label_images(files, place)
    without = [case.name for case in files if case.name not in label_images]
    if sought.need_truth and without:
        raise InputDataError(
            "images without boxes",
            field=str(place or files[0].image.parent),
            expected=f"one label image per image, <case>{LABEL_ENDINGS[0]}.nii.gz for example, "
            "or a table of all",
            got=f"none for {', '.join(without)}",
        )
    return replace(source, partners=label_images)


def label_image_files(sought: Wanted, data: DataSettings, instead: str) -> Source:
    """Find images and their label images.

    Args:
        sought: which images.
        data: how what is known of them is read.
        instead: what to do with a table of boxes.

    Raises:
        InputDataError: as `box_files`, or a table, which has no pixels.
    """
    source = box_files(sought, data)
    if source.boxes is not None:
        raise InputDataError(
            "a table of boxes does not say how things lie",
            field="data.landmarks",
            expected="label images",
            got=str(source.boxes.path),
            advice=instead,
        )
    return source


def image_pairs(sought: Wanted, data: DataSettings) -> Source:
    """Find images and the moving image of each; "" moves each image itself.

    Raises:
        InputDataError: nothing there, or an image without its partner.
    """
    sought.place("landmarks")
    files, moving = find_files(sought.images, subject=data.subject), sought.moving
    source = Source(tuple(files), None, (), data.pixel_mm or None)
    if not moving:
        return source
    others = find_files([Path(moving)])
    if is_list(Path(moving)) or len(files) == len(others) == 1:
        if len(others) != len(files):
            raise InputDataError(
                "the two lists differ in length",
                field="data.moving",
                expected=f"{len(files)} moving images, one per fixed image",
                got=str(len(others)),
            )
        pairs = {a.name: b.image for a, b in zip(files, others, strict=True)}
        return replace(source, partners=pairs)
    images = {case.name: case.image for case in others}
    without = [case.name for case in files if case.name not in images]
    if without:
        raise InputDataError(
            "images without a moving image",
            field="data.moving",
            expected="a folder with the same names, or a list line by line with the images",
            got=f"none for {', '.join(without)}",
        )
    return replace(source, partners=images)


Finder = Callable[[Wanted, DataSettings], Source]


def split_sources(data: DataSettings, seed: int, find: Finder) -> tuple[Source, Source | None]:
    """Find training and validation cases; None where nothing is held out.

    Args:
        data: where they are, and what is held out.
        seed: draws who is held out.
        find: the files of a place.

    Raises:
        InputDataError: no data, a subject that does not exist, or too few to hold one out.
    """
    if not data.images:
        raise InputDataError(
            "no images to train on", field="data.images", expected="a folder, or --data"
        )
    source = find(Wanted((Path(data.images),), data.landmarks, data.moving), data)
    if data.validation:
        place, truth = (Path(data.validation),), data.validation_landmarks
        validation = find(Wanted(place, truth, data.validation_moving), data)
        both = {f.subject for f in source.files} & {f.subject for f in validation.files}
        if both:
            raise InputDataError(
                "subjects are both trained on and held out",
                field="data.validation",
                expected="other subjects",
                got=f"{len(both)} of both",
            )
        return source, validation
    held_out = _held_out(source, data, seed)
    if not held_out:
        return source, None
    return source.only({f.subject for f in source.files} - held_out), source.only(held_out)


def _held_out(source: Source, data: DataSettings, seed: int) -> set[str]:
    subjects = sorted({f.subject for f in source.files})
    if data.validation_subjects:
        unknown = sorted(set(data.validation_subjects) - set(subjects))
        if unknown or len(set(data.validation_subjects)) == len(subjects):
            raise InputDataError(
                "cannot hold these subjects out",
                field="data.validation_subjects",
                expected=f"some of the {len(subjects)} subjects",
                got=f"unknown: {', '.join(unknown)}" if unknown else "all of them",
            )
        return set(data.validation_subjects)
    if data.validation_share == 0:
        return set()
    if len(subjects) < 2:
        raise InputDataError(
            "cannot hold a subject out",
            field="data.validation_share",
            expected="0 with a single subject",
            got=str(data.validation_share),
            advice="Set it to 0, or name other images in data.validation",
        )
    count = min(max(1, round(data.validation_share * len(subjects))), len(subjects) - 1)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(subjects))
    return {subjects[k] for k in order[:count]}


def names_in(
    source: Source, of_case: Callable[[CaseFiles], list[str]], thing: str
) -> tuple[str, ...]:
    """List everything that some case has, in the order in which it is met.

    Raises:
        InputDataError: a file cannot be read, or nothing is there.
    """
    names: dict[str, None] = {}
    for files in source.files:
        names.update(dict.fromkeys(of_case(files)))
    if not names:
        raise InputDataError(f"no {thing} in any file", field="data.landmarks")
    return tuple(names)


def landmarks_in(files: CaseFiles, source: Source) -> list[str]:
    """List the landmarks that a case has."""
    if source.table is not None:
        return list(source.table.of(files.name))
    if files.landmarks is None:
        return []
    if files.landmarks.name.lower().endswith(LIST_SUFFIX):
        return list(read_voxel_lines(files.landmarks, source.line_names))
    return list(read_landmarks(files.landmarks))

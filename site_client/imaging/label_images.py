"""Label images: where the components of each label lie, as boxes.

A label image holds whole numbers, 0 for nothing; every connected component of a
label is one lesion or organ. In volumes a box is along the patient's axes (LPS mm),
whatever the orientation of the file; in pictures along rows and columns, in
continuous indices of pixels. Label images may not leave the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.cases import AnyCase
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.dicom import read_series, without_header
from site_client.imaging.wholeness import require_whole

LabelledBox = tuple[str, NDArray[np.float64]]
"""A label, and the lower and upper corner of one of its components, float64[2, d]."""
_MOST_LABELS = 255


def boxes_in_volume(path: Path, least_voxels: int = 1) -> list[LabelledBox]:
    """Boxes along the LPS axes, mm, around the outer faces of the voxels.

    Args:
        path: a label image of three dimensions.
        least_voxels: smaller components are left out.

    Raises:
        InputDataError: unreadable, not three-dimensional, no whole numbers, too many labels.
    """
    image = _read(path, 3)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    spacing = np.array(image.GetSpacing())
    reach = np.abs(direction) @ spacing / 2
    boxes: list[LabelledBox] = []
    for label, index in _components(image, path, least_voxels):
        centres = (index * spacing) @ direction.T + np.array(image.GetOrigin())
        boxes.append((label, np.stack([centres.min(axis=0) - reach, centres.max(axis=0) + reach])))
    return boxes


def boxes_in_picture(path: Path, picture: Path, least_voxels: int = 1) -> list[LabelledBox]:
    """Boxes in continuous (x, y) indices of pixels, around their outer edges.

    Args:
        path: a label image of two dimensions, or of one slice.
        picture: the image it belongs to; both have the same size in pixels.
        least_voxels: smaller components are left out.

    Raises:
        InputDataError: unreadable, not two-dimensional, of another size than the picture, no
            whole numbers, too many labels.
    """
    image = _of_picture(path, picture)
    return [
        (label, np.stack([index.min(axis=0) - 0.5, index.max(axis=0) + 0.5]))
        for label, index in _components(image, path, least_voxels)
    ]


def turned_boxes_in_picture(
    path: Path, picture: Path, spacing_mm: NDArray[np.float64], least_voxels: int = 1
) -> list[tuple[str, NDArray[np.float64]]]:
    """Smallest rectangles, turned any way, around the pixels of each component.

    Args:
        path: a label image of two dimensions, or of one slice.
        picture: the image it belongs to; both have the same size in pixels.
        spacing_mm: float64[2], of the file's pixels along x and y.
        least_voxels: smaller components are left out.

    Returns:
        label and float64[5]: middle x and y (mm from the middle of the first pixel), longer and
        shorter side (mm), and the angle of the longer one from x to y, radians in 0 to pi.

    Raises:
        InputDataError: as `boxes_in_picture`.
    """
    image = _of_picture(path, picture)
    return [
        (label, smallest_rectangle(_outline(index) * spacing_mm))
        for label, index in _components(image, path, least_voxels)
    ]


def smallest_rectangle(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[5]: the rectangle of the smallest area around points float64[n, 2].

    Middle, longer and shorter side, and the longer one's angle; to half a degree.
    """
    angles = np.deg2rad(np.arange(0, 90, 0.5))
    axes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    across = axes[:, ::-1] * (-1.0, 1.0)
    along_u, along_v = points @ axes.T, points @ across.T
    low = np.stack([along_u.min(axis=0), along_v.min(axis=0)], axis=1)
    high = np.stack([along_u.max(axis=0), along_v.max(axis=0)], axis=1)
    best = int((high - low).prod(axis=1).argmin())
    middle = (low[best] + high[best]) / 2 @ np.stack([axes[best], across[best]])
    (wide, tall), angle = high[best] - low[best], angles[best]
    if tall > wide:
        wide, tall, angle = tall, wide, angle + np.pi / 2
    return np.array([*middle, wide, tall, angle])


def _outline(index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Corners of the first and the last pixel of every row: no other decides a rectangle."""
    rows = index[:, 1] - index[:, 1].min()
    first = np.full(rows.max() + 1, np.iinfo(np.int64).max)
    last = np.full(rows.max() + 1, -1)
    np.minimum.at(first, rows, index[:, 0])
    np.maximum.at(last, rows, index[:, 0])
    there = np.flatnonzero(last >= 0)
    y = there + index[:, 1].min()
    ends = np.concatenate([np.stack([x[there], y], axis=1) for x in (first, last)])
    around = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)])
    return np.asarray((ends[:, None] + around).reshape(-1, 2))


def _of_picture(path: Path, picture: Path) -> sitk.Image:
    """A label image of the size of its picture.

    Raises:
        InputDataError: unreadable, not two-dimensional, or of another size.
    """
    image = _read(path, 2)
    header = sitk.ImageFileReader()
    header.SetFileName(str(picture))
    try:
        header.ReadImageInformation()
    except RuntimeError as error:
        raise InputDataError("cannot read the image", field=str(picture)) from error
    if tuple(header.GetSize()[:2]) != image.GetSize():
        raise InputDataError(
            "the label image is of another size than its image",
            field=str(path),
            expected=f"{header.GetSize()[0]} x {header.GetSize()[1]} pixels",
            got=f"{image.GetSize()[0]} x {image.GetSize()[1]}",
        )
    return image


def _read(path: Path, dimension: int) -> sitk.Image:
    """A label image of whole numbers."""
    require_whole(path)
    try:
        image = read_series(path) if path.is_dir() else without_header(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise InputDataError(
            "cannot read the label image",
            field=str(path),
            expected="an image that SimpleITK opens",
            got="something else" if path.exists() else "no such file",
        ) from error
    while image.GetDimension() > dimension and image.GetSize()[-1] == 1:
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0])
    if image.GetDimension() != dimension or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputDataError(
            "cannot use the label image",
            field=str(path),
            expected=f"{dimension} dimensions, one value per pixel",
            got=f"{image.GetDimension()} dimensions, {image.GetNumberOfComponentsPerPixel()} "
            "values per pixel",
        )
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f" and not bool((values == np.rint(values)).all()):
        raise InputDataError(
            "cannot use the label image",
            field=str(path),
            expected="whole numbers, one per label",
            got="fractions",
            advice="Is it the image itself, or a probability map?",
        )
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise InputDataError(
            "cannot use the label image", field=str(path), expected="labels of 0 to 65535"
        )
    return sitk.Cast(image, sitk.sitkUInt16)


def _components(
    image: sitk.Image, path: Path, least_voxels: int
) -> list[tuple[str, NDArray[np.int64]]]:
    """(label, int64[voxels, d] indices x, y(, z)) of every component, by label."""
    labels = np.unique(sitk.GetArrayViewFromImage(image))
    labels = labels[labels > 0]
    if len(labels) > _MOST_LABELS:
        raise InputDataError(
            "cannot use the label image",
            field=str(path),
            expected=f"at most {_MOST_LABELS} labels",
            got=str(len(labels)),
            advice="Is it the image itself?",
        )
    components: list[tuple[str, NDArray[np.int64]]] = []
    for label in labels:
        split = sitk.ConnectedComponent(sitk.Equal(image, float(label)), True)
        where = sitk.GetArrayViewFromImage(split)
        index = np.argwhere(where > 0)
        which = where[tuple(index.T)]
        # One sort instead of a pass over the image per component.
        order = np.argsort(which, kind="stable")
        bounds = np.flatnonzero(np.diff(which[order])) + 1
        for rows in np.split(order, bounds):
            if len(rows) >= least_voxels:
                components.append((str(int(label)), index[rows][:, ::-1].astype(np.int64)))
    return components


def masks_on(
    path: Path, labels: Sequence[str], case: AnyCase, *, whole: bool = False
) -> dict[str, NDArray[np.bool_]]:
    """The largest component of each label, on the working grid of its image.

    Args:
        path: a label image.
        labels: which; those that have no pixel there are left out.
        case: the image it belongs to.
        whole: all components of a label instead.

    Returns:
        label to bool[(z,) y, x].

    Raises:
        InputDataError: unreadable, of another dimension, no whole numbers.
    """
    if isinstance(case, PictureCase):
        picture = case.picture
        image = _read(path, 2)
        image.SetSpacing(picture.file_spacing_mm.tolist())
        image.SetOrigin((0.0, 0.0))
        image.SetDirection((1.0, 0.0, 0.0, 1.0))
        size, spacing = picture.channels.shape[:0:-1], picture.spacing_mm
        origin, direction = [0.0, 0.0], [1.0, 0.0, 0.0, 1.0]
    else:
        volume, image = case.volume, _read(path, 3)
        size, spacing = volume.size.tolist(), volume.spacing_mm
        origin, direction = list(volume.origin_mm), volume.direction.ravel().tolist()
    apart = [spacing] * len(origin)
    grid = (sitk.Transform(len(origin), sitk.sitkIdentity), sitk.sitkNearestNeighbor)
    even = sitk.Resample(image, size, *grid, origin, apart, direction, 0)
    masks: dict[str, NDArray[np.bool_]] = {}
    for label in labels:
        split = sitk.ConnectedComponent(sitk.Equal(even, float(int(label))), True)
        where = sitk.GetArrayFromImage(split)
        counts = np.bincount(where.ravel())[1:]
        if counts.size:
            masks[label] = where > 0 if whole else where == counts.argmax() + 1
    return masks


def labels_in(path: Path, dimension: int) -> list[str]:
    """The labels of a label image, in the order of their numbers.

    Raises:
        InputDataError: unreadable, of another dimension, no whole numbers.
    """
    image = _read(path, dimension)
    # A view does not keep its image alive: the name does.
    values = np.unique(sitk.GetArrayViewFromImage(image))
    return [str(int(value)) for value in values if value > 0]

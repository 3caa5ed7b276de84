from __future__ import annotations

import locale
from collections.abc import Iterator

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from site_client.imaging.synthesis import Grid, RawImage, write_raw


@pytest.fixture(scope="session", autouse=True)
def one_dicom_before(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ITK writes no spacing into DICOM of this kind before it has read some, and always after."""
    image = sitk.GetImageFromArray(np.zeros((4, 4), np.uint8))
    path = tmp_path_factory.mktemp("first") / "first.dcm"
    sitk.WriteImage(image, str(path))
    sitk.ReadImage(str(path))


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """Writing DICOM, which tests alone do, leaves the whole process in the locale C."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture
def write_blob(tmp_path):
    """Write an image whose only bright spot is a Gaussian blob at a world position (LPS mm)."""

    def write(
        name,
        world_mm,
        *,
        size=(40, 36, 32),
        spacing=(1.0, 1.0, 1.0),
        direction=None,
        centre_mm=(5.0, -12.0, 30.0),
        sigma_mm=2.5,
        dtype=np.int16,
    ):
        direction = np.eye(3) if direction is None else direction
        half = (np.array(size) - 1) / 2 * np.array(spacing)
        origin = np.array(centre_mm) - direction @ half
        index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
        world = origin + (index * spacing) @ direction.T
        distance2 = ((world - np.asarray(world_mm)) ** 2).sum(axis=-1)
        voxels = (1000 * np.exp(-distance2 / (2 * sigma_mm**2))).T.astype(dtype)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grid = Grid(tuple(size), tuple(spacing), tuple(origin.tolist()), direction)
        write_raw(path, RawImage(np.ascontiguousarray(voxels), grid))
        return path

    return write


@pytest.fixture
def write_dicom(tmp_path):
    """Write an image file's slices as one DICOM series, file names in another order."""

    def write(name, source):
        image = sitk.Cast(sitk.ReadImage(str(source)), sitk.sitkInt16)
        folder = tmp_path / name
        folder.mkdir()
        direction = np.array(image.GetDirection()).reshape(3, 3)
        orientation = [*direction[:, 0], *direction[:, 1]]
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        for k in range(image.GetDepth()):
            cut = image[:, :, k]
            position = image.TransformIndexToPhysicalPoint((0, 0, k))
            for tag, value in {
                "0008|0060": "MR",
                "0020|000d": "1.2.3",
                "0020|000e": "1.2.3.4",
                "0008|0018": f"1.2.3.4.{k + 1}",
                "0020|0013": str(k + 1),
                "0020|0032": "\\".join(f"{v:.6f}" for v in position),
                "0020|0037": "\\".join(f"{v:.10f}" for v in orientation),
            }.items():
                cut.SetMetaData(tag, value)
            writer.SetFileName(str(folder / f"{(k * 7) % image.GetDepth():03d}.dcm"))
            writer.Execute(cut)
        return folder

    return write

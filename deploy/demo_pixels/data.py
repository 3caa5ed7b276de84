"""Data for the pixel demonstration: one airborne scene of 200 bands, cut into three sites.

The scene is Indian Pines (AVIRIS sensor over farmland and woods in Indiana, June 1992;
145 x 145 pixels of 20 m, 200 bands left after those of water vapour were taken out, 16
kinds of land cover): remote sensing, not tissue. Baumgardner, Biehl & Landgrebe, 220 Band
AVIRIS Hyperspectral Image Data Set: June 12, 1992 Indian Pine Test Site 3, Purdue
University Research Repository, 2015. It comes with tensorly's distribution (BSD-3);
no code of tensorly is imported.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import tifffile
from numpy.typing import NDArray

from common.errors import InputDataError

SITES: Final = ("site-a", "site-b", "site-c")
BANDS: Final = 200
PARTS: Final = 3  # the scene is cut into 3 x 3 blocks
UNLABELLED: Final = 0

# By number in the ground truth; 0 is unlabelled ground. Spelt as a codebook's groups are.
CLASSES: Final = (
    "unlabelled",
    "alfalfa",
    "corn no-till",
    "corn min-till",
    "corn",
    "grass pasture",
    "grass trees",
    "grass mowed",
    "hay windrowed",
    "oats",
    "soybean no-till",
    "soybean min-till",
    "soybean clean",
    "wheat",
    "woods",
    "buildings and trees",
    "stone and steel",
)
_FOLDER: Final = "datasets/data"
_SCENE: Final = "Indian_pines_corrected.npy"
_TRUTH: Final = "Indian_pines_gt.npy"

Scene = NDArray[np.uint16]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Block:
    """A rectangle of the scene, which becomes one slide of one site.

    Attributes:
        row, column: of the block among the blocks.
        site: whose it is, by number.
        rows, columns: of the scene, first and one past the last.
    """

    row: int
    column: int
    site: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def name(self) -> str:
        """The slide's name, without a suffix."""
        return f"block-{self.row}{self.column}"

    def cut(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the block out of an image of the whole scene, a view."""
        return image[slice(*self.rows), slice(*self.columns)]


def blocks(height: int, width: int, sites: int = len(SITES)) -> tuple[Block, ...]:
    """Return the scene in ``PARTS`` x ``PARTS`` blocks, dealt as in a Latin square.

    Every site has one block of each row and one of each column of blocks, so that no site
    has all of one corner; still, what grows on their fields differs.
    """
    down, across = _edges(height), _edges(width)
    return tuple(
        Block(i, j, (i + j) % sites, (down[i], down[i + 1]), (across[j], across[j + 1]))
        for i in range(PARTS)
        for j in range(PARTS)
    )


def _edges(length: int) -> list[int]:
    return [round(length * part / PARTS) for part in range(PARTS + 1)]


def band_names(count: int = BANDS) -> tuple[str, ...]:
    """``band-001`` and so on, in the order of the scene's file."""
    return tuple(f"band-{number:03d}" for number in range(1, count + 1))


def scene_folder() -> Path:
    """Find the scene in tensorly's distribution, without importing its code.

    Raises:
        InputDataError: tensorly is not installed, or no longer carries the scene.
    """
    spec = importlib.util.find_spec("tensorly")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / _FOLDER
        if (folder / _SCENE).is_file() and (folder / _TRUTH).is_file():
            return folder
    raise InputDataError(
        "the demonstration's scene is missing",
        field="tensorly",
        expected=f"{_SCENE} and {_TRUTH} in its distribution",
        got="neither" if spec is None else "an installation without them",
        advice="pip install --no-deps tensorly==0.10.0",
    )


def read_scene() -> tuple[Scene, Labels]:
    """uint16[rows, columns, 200] and the kind of ground of every pixel, uint8[rows, columns].

    Raises:
        InputDataError: no scene, or another one.
    """
    folder = scene_folder()
    scene = np.load(folder / _SCENE, allow_pickle=False)
    truth = np.load(folder / _TRUTH, allow_pickle=False)
    if (
        scene.dtype.kind not in "ui"
        or scene.shape != (*truth.shape, BANDS)
        or scene.min() < 0
        or scene.max() > np.iinfo(np.uint16).max
        or truth.max() != len(CLASSES) - 1
    ):
        raise InputDataError(
            "not the scene that the demonstration knows",
            field=_SCENE,
            expected=f"whole numbers of 16 bits[rows, columns, {BANDS}], {len(CLASSES)} kinds",
            got=f"{scene.dtype}{list(scene.shape)}",
        )
    return np.ascontiguousarray(scene, np.uint16), truth.astype(np.uint8)


def write_sites(folder: Path, scene: Scene) -> tuple[Path, ...]:
    """Cut a scene and write every site's slides, each site in its own format.

    Site a has OME-TIFF files, site b a folder of single-band TIFFs per slide, and site c
    ``.npy`` files whose bands stand in another order, with their names in ``bands.txt``.

    Args:
        folder: gets one folder per site.
        scene: uint16[rows, columns, bands].

    Returns:
        The sites' folders.
    """
    names = band_names(scene.shape[2])
    homes = tuple(folder / site for site in SITES)
    for home in homes:
        home.mkdir(parents=True, exist_ok=True)
    (homes[2] / "bands.txt").write_text("\n".join(reversed(names)) + "\n", encoding="utf-8")
    for block in blocks(*scene.shape[:2]):
        pixels = np.asarray(block.cut(scene), np.uint16)
        path = homes[block.site] / slide_name(block)
        if block.site == 0:
            tifffile.imwrite(
                path,
                np.moveaxis(pixels, -1, 0),
                photometric="minisblack",
                metadata={"axes": "CYX", "Channel": {"Name": list(names)}},
            )
        elif block.site == 1:
            path.mkdir()
            for number, name in enumerate(names):
                tifffile.imwrite(path / f"{name}.tif", pixels[..., number])
        else:
            np.save(path, np.ascontiguousarray(pixels[..., ::-1]))
    return homes


def slide_name(block: Block) -> str:
    """Name the block's slide at its site."""
    return block.name + (".ome.tif", "", ".npy")[block.site]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write three sites' slides below FOLDER."""
    scene, _ = read_scene()
    for home in write_sites(folder, scene):
        click.echo(home.name)


if __name__ == "__main__":
    main()

"""A slide as a map of groups: one byte per pixel, made chunk by chunk with the codebook.

The map stays at the site, like the slide it was made from. Four maps of
consecutive slices are the state of the paper's two-dimensional agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.keys.codebook import Codebook
from common.keys.pixel_agreement import AnyCodec
from site_client.pixels.counting import keys_of
from site_client.pixels.slides import Slide
from site_client.pixels.statistics import Progress

BACKGROUND: Final = 0
HISTORY: Final = 4
ROI: Final = 45

Labels = NDArray[np.uint8]


def embed(
    slide: Slide, codec: AnyCodec, codebook: Codebook, progress: Progress | None = None
) -> Labels:
    """The group of every pixel.

    Args:
        slide: with the codec's bands.
        codec: that the codebook was made with.
        codebook: with named groups, at most 255.
        progress: told about every chunk.

    Returns:
        uint8[rows, columns]: 0 for background, else 1 plus the codebook's group id.

    Raises:
        InputDataError: a codebook of another codec or without groups, other bands, or
            an unreadable slide.
    """
    codebook.require_codec(codec.identity)
    if not 1 <= len(codebook.group_names) <= 255:
        raise InputDataError(
            "unusable codebook",
            field="group_names",
            expected="1 to 255 named groups",
            got=f"{len(codebook.group_names)}",
        )
    labels = np.zeros(slide.pixels, np.uint8)
    done = 0
    for keys, foreground in keys_of(slide, codec, progress):
        part = labels[done : done + foreground.size]
        part[foreground] = codebook.groups(keys) + np.uint8(1)
        done += foreground.size
    if done != slide.pixels:
        raise InputDataError(
            "the slide has another size than its header says",
            field="slide",
            expected=f"{slide.pixels} pixels",
            got=f"{done}",
        )
    return labels.reshape(slide.shape[:2])


def write_map(path: Path, labels: Labels, spacing_mm: float = 1.0) -> None:
    """Write a group map (.mha, .nii or .nii.gz) that viewers open as labels.

    Raises:
        InputDataError: another suffix, or not a group map.
    """
    from site_client.imaging.multiband import write_labels

    write_labels(path, labels, spacing_mm)


def stack_of_maps(paths: Sequence[Path], label: int | None = None) -> Labels:
    """Group maps of consecutive slices as the channels of one image, for an agent to search.

    Args:
        paths: maps that ``write_map`` wrote, in the order of the slices; one is enough.
        label: where given, a channel is 255 where its map has this label and 0 elsewhere,
            so that what lies between two pixels has a meaning; otherwise labels are kept.

    Returns:
        uint8[channels, y, x], which ``Case2D`` takes as its image.

    Raises:
        InputDataError: no map, one that cannot be read, is no group map, or has another size.
    """
    from site_client.imaging.multiband import open_bands

    opened = [open_bands(path) for path in paths]
    sizes = {image.shape for image in opened}
    odd = [image.path for image in opened if image.dtype != np.uint8 or image.shape[2] != 1]
    if odd or len(sizes) != 1:
        raise InputDataError(
            "maps do not fit together",
            field=str(odd[0]) if odd else "maps",
            expected="one or more group maps uint8[y, x] of one size",
            got="another kind of image" if odd else f"{len(sizes)} sizes",
        )
    stack = np.stack([image.rows(0, image.shape[0])[..., 0] for image in opened])
    chosen = stack if label is None else np.where(stack == label, 255, 0)
    return np.ascontiguousarray(chosen, np.uint8)


@dataclass(frozen=True, eq=False)
class FourSliceState:
    """Four consecutive embedded slices as the channels of one two-dimensional image.

    Attributes:
        channels: uint8[4, rows, columns], first slice first; read-only.

    Raises:
        InputDataError: another type or shape.

    Source: the founding paper, section IV.
    """

    channels: Labels

    def __post_init__(self) -> None:
        if (
            self.channels.dtype != np.uint8
            or self.channels.ndim != 3
            or self.channels.shape[0] != HISTORY
            or self.channels.size == 0
        ):
            raise InputDataError(
                "not a four-slice state",
                field="channels",
                expected=f"uint8[{HISTORY}, rows, columns]",
                got=f"{self.channels.dtype}{list(self.channels.shape)}",
            )
        own = np.array(self.channels, order="C")
        own.flags.writeable = False
        object.__setattr__(self, "channels", own)

    @classmethod
    def from_maps(cls, maps: Sequence[Labels], label: int | None = None) -> FourSliceState:
        """Stack four group maps.

        Args:
            maps: four of uint8[rows, columns], in the order of the slices.
            label: where given, channels are 1 where a map has this label and 0
                elsewhere: the paper's binary state. Otherwise labels are kept.

        Raises:
            InputDataError: another number of maps, or different sizes.
        """
        if len(maps) != HISTORY or len({np.shape(one) for one in maps}) != 1:
            raise InputDataError(
                "four slices do not fit together",
                field="maps",
                expected=f"{HISTORY} maps of one size",
                got=f"{len(maps)} maps of {len({np.shape(one) for one in maps})} sizes",
            )
        stacked = np.stack(maps)
        return cls(stacked if label is None else (stacked == label).astype(np.uint8))

    def crop(self, row: int, column: int, size: int = ROI) -> Labels:
        """What an agent sees at a position: zeros beyond the slide.

        Args:
            row: of the middle pixel.
            column: of the middle pixel.
            size: side of the square, odd.

        Returns:
            uint8[4, size, size].

        Raises:
            InputDataError: an even size, or a position outside the slide.
        """
        rows, columns = self.channels.shape[1:]
        if size < 1 or size % 2 == 0 or not (0 <= row < rows and 0 <= column < columns):
            raise InputDataError(
                "nothing to look at",
                field="crop",
                expected=f"an odd size, a position within {rows} by {columns}",
                got="another",
            )
        half = size // 2
        out = np.zeros((HISTORY, size, size), np.uint8)
        top, left = max(row - half, 0), max(column - half, 0)
        seen = self.channels[:, top : row + half + 1, left : column + half + 1]
        at, beside = top - (row - half), left - (column - half)
        out[:, at : at + seen.shape[1], beside : beside + seen.shape[2]] = seen
        return out

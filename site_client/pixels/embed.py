"""A slide as a map of groups: one byte per pixel, made chunk by chunk with the codebook.

The map stays at the site, like the slide it was made from. Maps of consecutive
slices are the channels that an agent searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.keys.codebook import Codebook
from common.keys.pixel_agreement import AnyCodec
from site_client.pixels.counting import keys_of
from site_client.pixels.slides import Slide
from site_client.pixels.statistics import Progress

Labels = NDArray[np.uint8]


def embed(
    slide: Slide, codec: AnyCodec, codebook: Codebook, progress: Progress | None = None
) -> Labels:
    """Return the group of every pixel.

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
    """Write a group map, or several as channels (.mha, .nii or .nii.gz), that viewers open.

    Raises:
        InputDataError: another suffix, or not a group map.
    """
    from site_client.imaging.multiband import write_labels

    write_labels(path, labels, spacing_mm)


def as_channels(maps: Sequence[Labels], label: int | None = None) -> Labels:
    """Stack maps of consecutive slices as the channels of one image, for an agent to search.

    Four slices are the state of the founding paper's agent (section IV).

    Args:
        maps: of uint8[rows, columns], in the order of the slices.
        label: where given, a channel is 255 where its map has this label and 0 elsewhere:
            what lies between two pixels then has a meaning. Otherwise labels are kept.

    Returns:
        uint8[slices, rows, columns].

    Raises:
        InputDataError: none, or maps of several sizes.
    """
    sizes = {one.shape for one in maps}
    if len(sizes) != 1:
        raise InputDataError(
            "slices do not fit together",
            field="slides",
            expected="one or more of one size",
            got=", ".join(f"{rows} x {columns}" for rows, columns in sorted(sizes)) or "none",
            advice="Embed slides of other sizes each by itself, or register them first",
        )
    stack = np.stack(maps)
    return stack if label is None else np.where(stack == label, np.uint8(255), np.uint8(0))

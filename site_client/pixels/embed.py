"""A slide as a map of groups: one byte per pixel, made chunk by chunk with the codebook.

The map stays at the site, like the slide it was made from. Maps of consecutive
slices are the channels that an agent searches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


def labels_of(
    slide: Slide,
    codec: AnyCodec,
    codebook: Codebook,
    progress: Progress | None = None,
    threads: int = 1,
) -> Iterator[Labels]:
    """Yield the group of every pixel in reading order, chunk by chunk.

    Args:
        slide: with the codec's bands.
        codec: that the codebook was made with.
        codebook: with named groups, at most 255.
        progress: told about every chunk.
        threads: 1 to 64 that encode; groups do not depend on it.

    Yields:
        uint8[n]: 0 for background, else 1 plus the codebook's group id.

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
    for keys, foreground in keys_of(slide, codec, progress, threads):
        labels = np.zeros(foreground.size, np.uint8)
        labels[foreground] = codebook.groups(keys) + np.uint8(1)
        yield labels


def embed(
    slide: Slide, codec: AnyCodec, codebook: Codebook, progress: Progress | None = None
) -> Labels:
    """Return the group of every pixel of a slide whose map fits into memory; see ``labels_of``.

    Returns:
        uint8[rows, columns].

    Raises:
        InputDataError: as ``labels_of``, or fewer pixels than the slide's header says.
    """
    labels = np.concatenate([np.empty(0, np.uint8), *labels_of(slide, codec, codebook, progress)])
    if labels.size != slide.pixels:
        raise InputDataError(
            "the slide has another size than its header says",
            field="slide",
            expected=f"{slide.pixels} pixels",
            got=f"{labels.size}",
        )
    return labels.reshape(slide.shape[:2])


def write_map(path: Path, labels: Labels, spacing_mm: float = 1.0) -> None:
    """Write a group map, or several as channels (.mha, .nii or .nii.gz), that viewers open.

    Raises:
        InputDataError: another suffix, or not a group map.
    """
    from site_client.imaging.multiband import write_labels

    write_labels(path, labels, spacing_mm)


def write_slide_map(
    path: Path,
    slide: Slide,
    labels: Iterable[Labels],
    groups: int,
    spacing_mm: float = 1.0,
    label: int | None = None,
) -> NDArray[np.int64]:
    """Write one slide's map a piece at a time (.mha), however large; pixels of every label.

    Args:
        path: ends in .mha.
        slide: that is mapped.
        labels: of its pixels, as ``labels_of`` yields them.
        groups: how many there are, background aside.
        spacing_mm: distance of neighbouring pixels.
        label: where given, 255 is written where a pixel has this label, and 0 elsewhere.

    Raises:
        InputDataError: as ``labels_of``, or the file cannot be written.
    """
    from site_client.imaging.label_maps import write_in_pieces

    counts = np.zeros(1 + groups, np.int64)

    def counted() -> Iterator[Labels]:
        for part in labels:
            counts[:] += np.bincount(part, minlength=counts.size)
            yield part if label is None else _chosen(part, label)

    write_in_pieces(path, slide.shape[:2], counted(), spacing_mm)
    return counts


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
    return stack if label is None else _chosen(stack, label)


def _chosen(labels: Labels, label: int) -> Labels:
    return np.where(labels == label, np.uint8(255), np.uint8(0))

"""Slides as maps of a codebook's groups: of all slides for an order, or of one by hand.

Maps and the names of slides stay in the worker's own folder; what an order is
answered with is how many pixels each group has, and nothing for groups of a few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.canonical import sha256_hex
from common.errors import InputDataError
from common.keys.codebook import MAX_BYTES, Codebook
from common.keys.pixel_agreement import MAX_CODEC_BYTES, AnyCodec, read_codec
from common.model import Weights
from common.plan import Embed, FederationPlan
from common.sketching import SketchSpec
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from common.wire.records import GroupCounts, RoundReport
from site_client.worker.pixels import CODECS
from site_client.worker.slide_folder import Progress, Slides, find_slides
from site_client.worker.study import Assignment, State, StudyRoom, Subject

MAPS: Final = "maps"


class EmbedStudy:
    """See ``Study``. Nothing is carried from round to round.

    Args:
        subject: site, run, plan and spec.
        data: folder of slides.
        kept: folder of the worker below which maps are written; None in a rehearsal.
        progress: called with (what is done, pixels done, of how many); may raise.
        threads: that encode; no map depends on it.
    """

    def __init__(
        self,
        subject: Subject,
        data: Path,
        folder: Path | None = None,
        progress: Progress | None = None,
        threads: int = 1,
    ) -> None:
        self._subject = subject
        self._threads = threads
        self._data = data
        self._kept = folder
        self._progress = progress
        self.trained = 0

    def answer(self, assignment: Assignment) -> list[Envelope]:
        """See ``Study``."""
        plan = self._subject.plan.embed
        if assignment.header.phase == "begin":
            return [self._report(assignment, len(find_slides(self._data)))]
        codec = read_codec(assignment.header.codec or "")
        codebook = Codebook.from_bytes(assignment.codebook or b"", codec=codec.identity)
        if codebook.group_names != plan.groups:
            raise InputDataError(
                "the codebook has other groups than the plan",
                field="embed.groups",
                expected=", ".join(plan.groups),
                got="others",
            )
        counts, slides, pixels = self._embed(codec, codebook)
        released = np.where(counts >= plan.group_pixels, counts, 0)
        record = GroupCounts(
            **self._subject.about(assignment.header.round),
            codec=codec.identity,
            codebook=plan.codebook,
            slides=slides,
            pixels=pixels,
        )
        return [Envelope(record, {"counts": released}), self._report(assignment, slides)]

    def state(self) -> State:
        """See ``Study``; there is nothing to keep."""
        return {}

    def load_state(self, trained: int, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See ``Study``."""
        del state
        self.trained = trained

    def own_weights(self) -> Weights:
        """See ``Study``; there is no model."""
        return {}

    def _embed(self, codec: AnyCodec, codebook: Codebook) -> tuple[NDArray[np.int64], int, int]:
        """Write a map of every slide; pixels per label, slides, pixels."""
        from site_client.pixels.embed import labels_of, write_slide_map

        counts = np.zeros(1 + len(codebook.group_names), np.int64)
        slides = pixels = 0
        opened = Slides(self._data, codec.bands, self._progress).open("embedding slides")
        for path, slide, tell in opened:
            labels = labels_of(slide, codec, codebook, tell, self._threads)
            slides, pixels = slides + 1, pixels + slide.pixels
            if self._kept is None:
                for part in labels:
                    counts += np.bincount(part, minlength=counts.size)
                continue
            folder = self._kept / MAPS / self._subject.run
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{path.name}.mha"
            counts += write_slide_map(folder / name, slide, labels, counts.size - 1)
        return counts, slides, pixels

    def _report(self, assignment: Assignment, slides: int) -> Envelope:
        record = RoundReport(
            **self._subject.about(assignment.header.round),
            code=ReplyCode.OK,
            images=slides,
            link=assignment.derived.link,
            key_id=self._subject.spec.key_id,
            codec=self._subject.plan.embed.codec,
        )
        return Envelope(record, {})


@dataclass(frozen=True)
class MapFile:
    """The file written of slides that are embedded alone.

    Attributes:
        path: ends in .mha, .nii or .nii.gz.
        group: where given, 255 where a pixel is of this group and 0 elsewhere, in place of labels.
        pixel_mm: distance of neighbouring pixels, for the header.
    """

    path: Path
    group: str | None = None
    pixel_mm: float = 1.0


def embed_alone(
    slides: Sequence[Path],
    codebook_file: Path,
    codec_file: Path | None,
    folder: Path,
    output: MapFile,
    progress: Progress,
) -> dict[str, int]:
    """Write the map of one slide, or of consecutive ones as channels; nothing leaves.

    One slide's ``.mha`` is written a piece at a time, however large the slide. Channels and
    NIfTI are held in memory, a byte a pixel.

    Args:
        slides: each a file, or a folder of single-band TIFFs, in the order of the channels.
        codebook_file: labelled.
        codec_file: of the codebook; None takes the one a pixels run left in ``folder``.
        folder: the worker's folder.
        output: where, and what.
        progress: called with (what is done, pixels done, of how many).

    Returns:
        Pixels of the background and of each group, by name.

    Raises:
        InputDataError: a file that cannot be read, slides of several sizes, a codebook
            without groups, without the one asked for or of another codec, or no codec.
    """
    from site_client.imaging.label_maps import SUFFIX
    from site_client.pixels.embed import (
        as_channels,
        embed,
        labels_of,
        write_map,
        write_slide_map,
    )
    from site_client.pixels.slides import open_slide

    codebook = Codebook.from_bytes(_read(codebook_file, MAX_BYTES, "codebook"))
    codec = read_codec(_codec_text(codec_file, folder, codebook.codec))
    names = ("background", *codebook.group_names)
    if output.group is not None and output.group not in names:
        raise InputDataError(
            "the codebook has no such group",
            field="group",
            expected=f"one of {', '.join(names)}",
            got=output.group,
        )
    opened = [open_slide(slide, codec.bands) for slide in slides]
    whole = sum(slide.pixels for slide in opened)

    def from_pixel(before: int) -> Callable[[int], None]:
        return lambda done: progress("embedding", before + done, whole)

    label = None if output.group is None else names.index(output.group)
    if len(opened) == 1 and output.path.name.lower().endswith(SUFFIX):
        (slide,) = opened
        labels, groups = labels_of(slide, codec, codebook, from_pixel(0)), len(names) - 1
        of_label = write_slide_map(output.path, slide, labels, groups, output.pixel_mm, label)
        return dict(zip(names, of_label.tolist(), strict=True))
    maps: list[NDArray[np.uint8]] = []
    for slide in opened:
        before = sum(one.size for one in maps)
        maps.append(embed(slide, codec, codebook, from_pixel(before)))
    stack = as_channels(maps, label)
    write_map(output.path, stack[0] if len(stack) == 1 else stack, output.pixel_mm)
    counts = np.bincount(np.stack(maps).ravel(), minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))


@dataclass(frozen=True)
class BesideOrder:
    """The codec and codebook that the order of an embedding run brings along.

    Attributes:
        codec: canonical JSON of the codec.
        codebook: bytes of the labelled codebook.
    """

    codec: str
    codebook: bytes


def read_brought(
    section: Embed, codebook_file: Path | None, codec_file: Path | None, folder: Path
) -> BesideOrder:
    """Return the same from files, for a rehearsal.

    Args:
        section: the plan's.
        codebook_file: labelled; None if nobody named one.
        codec_file: None takes the one a pixels run left in ``folder``.
        folder: the worker's folder.

    Raises:
        InputDataError: no codebook, a file that cannot be read, or another one than
            the plan names.
    """
    if codebook_file is None:
        raise InputDataError(
            "this plan cannot be rehearsed alone",
            field="embed.codebook",
            expected=f"the codebook of digest {section.codebook[:12]}…, which a run brings along",
            got="the plan without it",
            advice="Ask the coordinator for the file: cairn-site dry-run PLAN --codebook FILE",
        )
    codebook = _read(codebook_file, MAX_BYTES, "codebook")
    text = _codec_text(codec_file, folder, section.codec)
    documents = {"codec": (text.encode("utf-8"), section.codec)}
    documents["codebook"] = (codebook, section.codebook)
    for name, (data, digest) in documents.items():
        if sha256_hex(data) != digest:
            raise InputDataError(
                f"not the {name} that the plan names",
                field=f"embed.{name}",
                expected=f"digest {digest[:12]}…",
                got=f"{sha256_hex(data)[:12]}…",
                advice=f"Ask the coordinator for the plan's own {name}",
            )
    return BesideOrder(text, codebook)


def _codec_text(codec_file: Path | None, folder: Path, identity: str) -> str:
    """Return a codec as it travels: from the file, else the one that a run of pixels left."""
    place = codec_file or folder / CODECS / f"{identity}.json"
    return _read(place, MAX_CODEC_BYTES, "codec").decode("utf-8", "replace")


def _read(path: Path, most: int, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise InputDataError(
            f"cannot read the {what}",
            field=str(path),
            expected="a readable file",
            got=type(error).__name__,
            advice="Name it with --codec, if no run of pixels left it here"
            if what == "codec"
            else "",
        ) from error


def _spec(plan: FederationPlan, secret: bytes) -> SketchSpec:
    """Name the federation by its key; nothing is sketched."""
    return SketchSpec(rows=1, columns=1, key=secret, domain=plan.embed.codec)


ROOM: Final = StudyRoom(
    _spec,
    lambda order: order.plan.embed.codec,
    lambda subject, given: EmbedStudy(
        subject, given.data, given.folder, given.progress, given.slides.threads
    ),
)

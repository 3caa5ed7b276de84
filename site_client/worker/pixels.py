"""A run of pixels at one site: sums, then keyed tables, then what may be named of them all.

Slides are read from disk in every phase, a few rows at a time. What was found in a slide is
kept until the phase is over, so an interrupted order loses the slide it was in.
Recovery happens here because only sites hold the key; only keys that pass the
release gate of ``site_client.pixels.release`` become a record.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from common.canonical import sha256_hex
from common.errors import InternalError
from common.keys.pixel_agreement import AnyCodec, family, read_codec, read_component_codec
from common.keys.pixel_statistics import ComponentRanges, PixelSurvey
from common.keys.pixels import PixelCodec
from common.model import Weights
from common.plan import FederationPlan
from common.sketching import CountSketch, SketchSpec
from common.sums.summand import Summand
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from common.wire.orders import Order
from common.wire.records import HeavyHitters, PixelSketches, PixelStatistics, RoundReport
from site_client.files import write_atomically
from site_client.site import SlideSettings
from site_client.worker.hidden import hide, show
from site_client.worker.slide_folder import Progress, Slides
from site_client.worker.slide_tasks import SlideTask, forget_asked, forget_passes, wait_for_shards
from site_client.worker.study import Assignment, State, StudyRoom, Subject

if TYPE_CHECKING:
    from site_client.pixels.counting import PixelTables
    from site_client.pixels.passes import Found

CODECS: Final = "codecs"


class PixelStudy:
    """See ``Study``. Nothing is carried from round to round.

    Args:
        subject: site, run, plan, and the spec of the sketches.
        data: folder of slides.
        kept: folder of the worker in which the codec is left for ``cairn-site embed``;
            None in a rehearsal.
        progress: called with (what is done, pixels done, of how many); may raise
            ``StoppedError`` to leave the order.
        settings: the site's, of counting.
    """

    def __init__(
        self,
        subject: Subject,
        data: Path,
        folder: Path | None = None,
        progress: Progress | None = None,
        settings: SlideSettings = SlideSettings(),  # noqa: B008  # frozen
    ) -> None:
        self._subject = subject
        self._asked = subject.plan.pixels
        self._slides = Slides(data, self._asked.bands, progress)
        self._settings = settings
        self._kept = folder
        self.trained = 0

    def answer(self, assignment: Assignment) -> list[Envelope]:
        """See ``Study``."""
        began = time.monotonic()
        phase, round_ = assignment.header.phase, assignment.header.round
        records: list[Envelope] = []
        if phase == "begin":
            slides, identity = self._slides.count(), family(self._subject.plan)
        elif phase == "survey":
            slides, identity = self._survey(round_, records)
        else:
            text = assignment.header.codec or ""
            codec = read_codec(text)
            identity = codec.identity
            if phase == "range":
                slides = self._ranges(round_, read_component_codec(text), records)
            elif phase == "sketch":
                slides = self._sketch(round_, codec, records)
            else:
                slides = self._recover(assignment, codec, records)
        spent_ms = round((time.monotonic() - began) * 1000)
        return [*records, self._report(assignment, slides, identity, spent_ms)]

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

    def _survey(self, round_: int, records: list[Envelope]) -> tuple[int, str]:
        identity = family(self._subject.plan)
        with self._found("survey", None, "summing up pixels") as (whole, slides):
            if not isinstance(whole, PixelSurvey):
                raise _other_result()
        record = PixelStatistics(
            **self._subject.about(round_),
            subject="survey",
            codec=identity,
            slides=slides,
            pixels=whole.pixels,
        )
        records.append(Envelope(record, {"histogram": whole.histogram, "gram": whole.gram}))
        return slides, identity

    def _ranges(self, round_: int, codec: PixelCodec, records: list[Envelope]) -> int:
        with self._found("range", codec, "finding ranges") as (whole, slides):
            if not isinstance(whole, ComponentRanges):
                raise _other_result()
        record = PixelStatistics(
            **self._subject.about(round_),
            subject="ranges",
            codec=codec.identity,
            slides=slides,
            pixels=whole.pixels,
        )
        records.append(Envelope(record, {"histogram": whole.histogram}))
        return slides

    def _sketch(self, round_: int, codec: AnyCodec, records: list[Envelope]) -> int:
        from site_client.pixels.counting import tables_of
        from site_client.pixels.passes import Counts

        spec = self._spec(codec)
        with self._found("sketch", codec, "counting keys") as (whole, slides):
            if not isinstance(whole, Counts):
                raise _other_result()
            tables = tables_of(codec, spec, self._asked.presence_floor, whole.merged())
        record = PixelSketches(
            **self._subject.about(round_),
            rows=spec.rows,
            columns=spec.columns,
            key_id=spec.key_id,
            codec=codec.identity,
            slides=slides,
            pixels=whole.pixels,
        )
        arrays = {
            name: np.array(sketch.table)
            for name, sketch in zip(self._asked.tables, tables.sketches, strict=True)
        }
        arrays["prefix_counts"] = hide(tables.views.histogram, spec)
        records.append(Envelope(record, arrays))
        return slides

    @contextmanager
    def _found(self, phase: str, codec: AnyCodec | None, what: str) -> Iterator[tuple[Found, int]]:
        """What this site's slides hold together, and how many they are.

        Taken from shards where these were merged; otherwise looked through here, each
        slide's result kept until the next phase begins.
        """
        from site_client.pixels.passes import place_for

        task = SlideTask(self._subject.plan, phase, codec)
        folder = None
        if self._kept is not None:
            folder = task.begin(self._kept, self._spec_of(codec))
        with place_for(folder) as place:
            whole = task.slide_pass(self._spec_of(codec), place, self._settings.threads)
            if folder is not None and self._settings.by_shards:
                yield wait_for_shards(whole, self._slides.listed, self._slides.progress)
            else:
                yield self._slides.found(whole, what)
        if self._kept is not None:
            forget_asked(self._kept)

    def _recover(self, assignment: Assignment, codec: AnyCodec, records: list[Envelope]) -> int:
        """Name the frequent keys of the sum that this site has verified."""
        from site_client.pixels.release import ReleaseRule, release

        plan, spec, merged = self._asked, self._spec(codec), assignment.derived.tables
        if merged is None:
            raise InternalError("nothing to recover from", expected="merged tables", got="none")
        rule = ReleaseRule(plan.key_pixels, plan.key_sites)
        named = release(read_tables(codec, spec, merged, plan.tables), rule, plan.top)
        ascending = np.argsort(named.keys)
        record = HeavyHitters(
            **self._subject.about(assignment.header.round),
            key_id=spec.key_id,
            codec=codec.identity,
            threshold=math.floor(named.threshold),
        )
        arrays = {
            "keys": named.keys[ascending].view(np.int64),
            "counts": np.floor(named.counts[ascending]).astype(np.int64),
        }
        records.append(Envelope(record, arrays))
        if self._kept is not None:
            forget_passes(self._kept)
            folder = self._kept / CODECS
            folder.mkdir(parents=True, exist_ok=True)
            text = assignment.header.codec or ""
            write_atomically(folder / f"{codec.identity}.json", text.encode("utf-8"))
        return self._slides.count()

    def _spec_of(self, codec: AnyCodec | None) -> SketchSpec:
        return self._subject.spec if codec is None else self._spec(codec)

    def _spec(self, codec: AnyCodec) -> SketchSpec:
        return replace(self._subject.spec, domain=codec.identity)

    def _report(
        self, assignment: Assignment, slides: int, identity: str, spent_ms: int
    ) -> Envelope:
        record = RoundReport(
            **self._subject.about(assignment.header.round),
            code=ReplyCode.OK,
            images=slides,
            link=assignment.derived.link,
            key_id=self._subject.spec.key_id,
            codec=identity,
            train_ms=spent_ms,
        )
        return Envelope(record, {})


def _other_result() -> InternalError:
    return InternalError("a pass found something else", expected="its own", got="another's")


def read_tables(
    codec: AnyCodec, spec: SketchSpec, merged: Summand, names: tuple[str, ...]
) -> PixelTables:
    """Return the merged tables, by the plan's names, with the key to query them.

    Raises:
        SketchError: another shape.
    """
    from site_client.pixels.counting import PixelTables

    tables = PixelTables.empty(codec, spec)

    def table(name: str) -> NDArray[np.int64]:
        return merged.arrays[name]

    full, *prefixes, presence = (
        CountSketch.from_table(empty.spec, table(name))
        for name, empty in zip(names, tables.sketches, strict=True)
    )
    tables.views.full, tables.views.prefixes = full, prefixes
    tables.views.histogram = show(table("prefix_counts"), spec)
    return replace(tables, presence=presence)


def _spec(plan: FederationPlan, secret: bytes) -> SketchSpec:
    section = plan.pixels
    return SketchSpec(section.rows, section.columns, secret, domain=family(plan))


def sketch_spec_of(plan: FederationPlan, secret: bytes, codec: AnyCodec | None) -> SketchSpec:
    """Return the spec of a plan's sketches, once there is a codec of its keys."""
    spec = _spec(plan, secret)
    return spec if codec is None else replace(spec, domain=codec.identity)


def _codec(order: Order) -> str:
    text = order.header.codec
    return family(order.plan) if text is None else sha256_hex(text.encode("utf-8"))


ROOM: Final = StudyRoom(
    _spec,
    _codec,
    lambda subject, given: PixelStudy(
        subject, given.data, given.folder, given.progress, given.slides
    ),
)

"""A site's slides counted by shards: what ``cairn-site pixels`` does, beside the worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.arrivals.files import read_bounded
from common.errors import InputDataError
from common.keys.pixel_agreement import MAX_CODEC_BYTES, read_codec
from common.plan import read_plan
from site_client.pixels.passes import SlidePass, place_for
from site_client.pixels.shards import Shard, dealt, merge, write_seen
from site_client.site import SiteFolder
from site_client.worker.experience import sketch_secret
from site_client.worker.pixels import Progress, Slides, sketch_spec_of
from site_client.worker.setup import read_shared_key
from site_client.worker.slide_tasks import SlideTask, merged_file, read_asked, slide_task


@dataclass(frozen=True)
class Done:
    """How much was done: slides, and the pixels that were taken of them."""

    slides: int
    pixels: int


def open_pass(
    site: SiteFolder,
    plan_file: Path | None,
    phase: str | None,
    codec_file: Path | None,
    results: Path | None,
    threads: int | None,
) -> SlidePass:
    """Return the pass that the worker was asked for, or the one that is named.

    Args:
        site: whose key and settings.
        plan_file: None takes what the worker was asked.
        phase: with a plan.
        codec_file: with a plan, after the survey.
        results: folder for results; None takes the worker's.
        threads: None takes the site's setting.

    Raises:
        InputDataError: nothing is asked, no key, or parts that do not fit together.
    """
    own = site.slide_results
    task = read_asked(own) if plan_file is None else _named(plan_file, phase or "", codec_file)
    spec = sketch_spec_of(task.plan, sketch_secret(task.plan, read_shared_key(site)), task.codec)
    found = task.slide_pass(spec, own, threads or site.slide_settings().threads)
    folder = (results or own) / found.bond.name
    with place_for(folder):
        return task.slide_pass(spec, folder, found.threads)


def _named(plan_file: Path, phase: str, codec_file: Path | None) -> SlideTask:
    codec = None
    if codec_file is not None:
        try:
            text = read_bounded(codec_file, MAX_CODEC_BYTES, "codec").decode("utf-8", "replace")
        except OSError as error:
            raise InputDataError(
                "cannot read the codec", field=str(codec_file), expected="a file", got="none"
            ) from error
        codec = read_codec(text)
    return slide_task(read_plan(plan_file), phase, codec)


def count_shard(site: SiteFolder, whole: SlidePass, text: str, progress: Progress) -> Done:
    """Look through one shard's slides, and say what it saw.

    Args:
        site: whose slides.
        whole: the pass.
        text: which shard, as ``i/n``.
        progress: told about the pixels done.

    Raises:
        InputDataError: no such shard, or slides that cannot be read.
    """
    shard, slides = Shard.parse(text), Slides(site.data(), whole.section.bands, progress)
    every = slides.listed()
    own = {one.path for one in dealt(every, shard)}
    parts = {path.name: part for path, part in slides.parts(whole, "counting a shard", own)}
    write_seen(whole, shard, every, parts)
    return Done(len(parts), sum(part.found.pixels for part in parts.values()))


def merge_shards(whole: SlidePass, folders: Sequence[Path]) -> tuple[Done, Path]:
    """Put all shards together where the worker looks for it; how much, and where.

    Args:
        whole: the pass.
        folders: where shards kept their results, above the folder of the pass; none takes
            the one that all shared.

    Raises:
        InputDataError: shards that do not make a whole.
    """
    target = merged_file(whole.folder)
    places = [folder / whole.bond.name for folder in folders] or [whole.folder]
    found, slides = merge(whole, places, target)
    return Done(slides, found.pixels), target

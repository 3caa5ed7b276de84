"""A site's slides counted by shards: what ``cairn-site pixels`` does, beside the worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.arrivals.files import read_bounded
from common.errors import CairnError, InputDataError
from common.keys.pixel_agreement import MAX_CODEC_BYTES, read_codec
from common.plan import read_plan
from site_client.pixels.passes import SlidePass, place_for
from site_client.pixels.shards import Shard, dealt, merge, write_seen
from site_client.site import SiteFolder
from site_client.worker.experience import sketch_secret
from site_client.worker.pixels import sketch_spec_of
from site_client.worker.setup import read_shared_key
from site_client.worker.slide_folder import Progress, Slides
from site_client.worker.slide_tasks import SlideTask, merged_file, read_asked, slide_task


@dataclass(frozen=True)
class Done:
    """How much was done: slides, and the pixels that were taken of them."""

    slides: int
    pixels: int


class ShardWords(NamedTuple):
    """A pass in words that another machine understands, which sees the same folders.

    Attributes:
        root: the site's folder.
        plan: file; None takes what the worker was asked.
        phase: with a plan.
        codec: file, with a plan after the survey.
        results: folder for results; None takes the worker's.
        threads: None takes the site's setting.
    """

    root: str
    plan: str | None = None
    phase: str | None = None
    codec: str | None = None
    results: str | None = None
    threads: int | None = None


def open_pass(words: ShardWords) -> SlidePass:
    """Return the pass that the worker was asked for, or the one that is named.

    Raises:
        InputDataError: nothing is asked, no key, or parts that do not fit together.
    """
    site = SiteFolder(Path(words.root))
    results = site.slide_results
    task = read_asked(results) if words.plan is None else _named(words)
    spec = sketch_spec_of(task.plan, sketch_secret(task.plan, read_shared_key(site)), task.codec)
    sums = task.slide_pass(spec, results, words.threads or site.slide_settings().threads)
    folder = Path(words.results or results) / sums.bond.name
    with place_for(folder):
        return task.slide_pass(spec, folder, sums.threads)


def _named(words: ShardWords) -> SlideTask:
    codec = None
    if words.codec is not None:
        codec = read_codec(_text_of(Path(words.codec), "codec"))
    return slide_task(read_plan(Path(words.plan or "")), words.phase or "", codec)


def _text_of(path: Path, what: str) -> str:
    try:
        return read_bounded(path, MAX_CODEC_BYTES, what).decode("utf-8", "replace")
    except OSError as error:
        raise InputDataError(
            f"cannot read the {what}", field=str(path), expected="a file", got="none"
        ) from error


def shard_by_words(words: ShardWords, shard: str) -> tuple[str, int, int] | tuple[str, str]:
    """Count a shard on whatever machine this is called; what went wrong is said and not raised.

    Errors of this project do not survive the way back from another machine.
    """
    try:
        done = count_shard(SiteFolder(Path(words.root)), open_pass(ShardWords(*words)), shard)
    except CairnError as error:
        return "failed", str(error)
    return "done", done.slides, done.pixels


def count_shard(
    site: SiteFolder, whole: SlidePass, text: str, progress: Progress | None = None
) -> Done:
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
    mine = {one.path for one in dealt(every, shard)}
    parts = {path.name: part for path, part in slides.parts(whole, "counting a shard", mine)}
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
    sums, slides = merge(whole, places, target)
    return Done(slides, sums.pixels), target

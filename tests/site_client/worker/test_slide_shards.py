"""Slides of a site counted by several processes: what is merged is what the worker says."""

import json
import threading
import time

import numpy as np
from click.testing import CliRunner

from common.errors import CairnError
from common.keys.pixel_agreement import codec_text
from common.sketching import SketchSpec
from common.wire.codes import ReplyCode
from site_client.cli import cli
from site_client.pixels.counting import PixelCounter, count_slides
from site_client.pixels.slides import open_slide
from site_client.pixels.statistics import component_ranges, survey
from site_client.worker.experience import sketch_secret
from site_client.worker.setup import read_shared_key
from site_client.worker.slide_tasks import ASKED
from tests.site_client.worker.conftest import SECTION, answer, code, tell


def cairn(site, *words, code=0):
    done = CliRunner().invoke(cli, ["pixels", *words, "--site-dir", str(site.folder.root)])
    if isinstance(done.exception, CairnError):
        assert done.exception.exit_code == code, done.exception
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout


def by_shards(site, order, shards=3):
    """The answer of a worker that waits, while shards count and are merged by commands."""
    with site.folder.settings_file.open("a") as file:
        file.write('slides = "shards"\nslide_threads = 2\n')
    replies = []
    worker = threading.Thread(target=lambda: replies.append(answer(site, order)))
    worker.start()
    asked = site.folder.slide_results / ASKED
    deadline = time.monotonic() + 60
    while not asked.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for number in range(1, shards + 1):
        assert not replies  # it waits
        said = json.loads(cairn(site, "count", "--shard", f"{number}/{shards}", "--json"))
        assert said["shard"] == f"{number}/{shards}"
    said = json.loads(cairn(site, "merge", "--json"))
    assert said["slides"] == 2
    worker.join(60)
    return replies[0]


def the_plan(folder):
    """Options that name the survey of the fixture's plan."""
    section = [f"{name} = {json.dumps(value)}" for name, value in SECTION.items()]
    head = ['name = "tissue"', "seed = 1", 'kind = "pixels"', "[pixels]"]
    (folder / "plan.toml").write_text("\n".join([*head, *section]) + "\n")
    return ["--plan", str(folder / "plan.toml"), "--phase", "survey"]


def own_slides(site):
    paths = sorted(site.folder.data().glob("*.npy"))
    return [open_slide(path, site.plan.pixels.bands) for path in paths]


def test_a_worker_answers_a_survey_with_the_merged_shards(slides):
    sums = by_shards(slides, slides.order(1, "survey"))["PixelStatistics"]
    one, other = map(survey, own_slides(slides))
    assert (sums.record.slides, sums.record.pixels) == (2, (one + other).pixels)
    np.testing.assert_array_equal(sums.arrays["gram"], (one + other).gram)
    np.testing.assert_array_equal(sums.arrays["histogram"], (one + other).histogram)


def test_a_worker_answers_for_ranges_with_the_merged_shards(slides, widest):
    order = slides.order(2, "range", codec=codec_text(widest))
    sums = by_shards(slides, order, shards=1)["PixelStatistics"]
    one, other = (component_ranges(slide, widest.projection) for slide in own_slides(slides))
    assert sums.record.pixels == (one + other).pixels > 0
    np.testing.assert_array_equal(sums.arrays["histogram"], (one + other).histogram)


def test_a_worker_answers_with_the_tables_of_the_merged_shards_and_forgets_the_keys(slides, codec):
    order = slides.order(3, "sketch", codec=codec_text(codec))
    reply = by_shards(slides, order)
    spec = SketchSpec(3, 64, sketch_secret(slides.plan, read_shared_key(slides.folder)))
    counter = PixelCounter(codec, spec, slides.plan.pixels.presence_floor)
    count_slides(own_slides(slides), counter, codec)
    expected = counter.tables()
    sent = reply["PixelSketches"].arrays
    for name, table in zip(slides.plan.pixels.tables, expected.sketches, strict=True):
        np.testing.assert_array_equal(sent[name], table.table)
    tell(slides, reply)
    assert any(path.suffix == ".merged" for path in slides.folder.slide_results.iterdir())
    answer(slides, slides.order(4, "recover", codec=codec_text(codec)))
    assert list(slides.folder.slide_results.iterdir()) == []


def test_merged_shards_of_slides_that_were_exchanged_are_refused(slides, tmp_path):
    order = slides.order(1, "survey")
    named = the_plan(tmp_path)
    cairn(slides, "count", *named)
    cairn(slides, "merge", *named)
    first = next(iter(sorted(slides.folder.data().glob("*.npy"))))
    np.save(first, np.load(first)[::-1])
    with slides.folder.settings_file.open("a") as file:
        file.write('slides = "shards"\n')
    assert code(answer(slides, order)) is not ReplyCode.OK


def test_what_the_commands_cannot_do_is_said(slides, tmp_path):
    assert "nothing is asked" in cairn(slides, "count", code=6)
    assert "--shard" in cairn(slides, "count", "--shard", "3/2", *the_plan(tmp_path), code=6)
    cairn(slides, "count", "--shard", "1/3", *the_plan(tmp_path))
    cairn(slides, "count", "--shard", "3/3", *the_plan(tmp_path))
    assert "none of 2/3" in cairn(slides, "merge", *the_plan(tmp_path), code=6)
    assert "--plan needs --phase" in cairn(slides, "count", *the_plan(tmp_path)[:2], code=2)
    assert "go with --plan" in cairn(slides, "count", "--phase", "survey", code=2)
    ranges = [*the_plan(tmp_path)[:2], "--phase", "range"]
    assert "survey without a codec" in cairn(slides, "count", *ranges, code=6)

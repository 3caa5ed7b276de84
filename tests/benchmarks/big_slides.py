"""Slides beyond a machine's memory, from disk to the merged table: all passes, shards, bit for bit.

One made-up slide of 35 bands of 16 bits lies in a folder and is there many times over, under
as many names (hard links), so that little disk is needed. Every name is read, digested,
counted and kept as any slide is: nothing knows that two names hold the same bytes. What the
page cache makes of it is said: with more bytes under one name than memory it makes nothing.

1. ``passes``: CPU ns per pixel of survey, ranges and count, in turns with the definitions
   they equal bit for bit (BLAS in float64 as it was before the compiled loops).
2. ``whole``: survey, ranges, count and tables of all names, ``--threads`` threads, by
   the very functions of a worker; wall and processor seconds, and the largest memory.
3. ``shards``: the count alone in ``--shards`` processes, ``--at-once`` at a time, by
   ``cairn-site pixels count`` and ``merge``; where the same names were counted by one process,
   the merged counts must be equal bit for bit, else this fails.

  python -m tests.benchmarks.big_slides --pixels 1e8                     a look
  python -m tests.benchmarks.big_slides --pixels 1e9 --threads 2         one machine
  python -m tests.benchmarks.big_slides --pixels 1e10 --shards 100 --only shards

With -o build/pixel-results the figures go into ``PIXELS.md`` by ``python -m
tests.benchmarks.pixel_road report``. Fails for bits that differ, never for slowness.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from common.crypto.keyed import FederationKey, write_federation_key
from common.keys.pixel_agreement import codec_text, fit_ranges, fit_widest
from common.keys.pixel_statistics import (
    INTENSITY_BINS,
    RANGE_BINS,
    RANGE_UNITS,
    intensity_bins,
)
from common.plan import read_plan
from site_client.pixels.checkpoints import open_sealed
from site_client.pixels.counting import PixelCounter, count_slides, tables_of
from site_client.pixels.passes import read_part
from site_client.pixels.slides import open_slide
from site_client.pixels.statistics import component_ranges, survey
from site_client.site import SiteFolder
from site_client.worker.slide_folder import Slides
from site_client.worker.slide_shards import ShardWords, open_pass
from site_client.worker.slide_tasks import merged_file, slide_task
from tests.benchmarks.pixels import BANDS, SPEC, InMemory, fit, tissue, write_slide

SEED = 2024
PLAN = """\
name = "big-slides"
seed = 1
kind = "pixels"
[pixels]
bands = {bands}
rows = 16
columns = 200_000
[limits]
max_envelope_bytes = 134_217_728
"""


def reference_survey(slide):
    """The sums as they were computed before: BLAS in float64, numpy for the rest."""
    gram = np.zeros((len(BANDS),) * 2, np.int64)
    histogram = np.zeros(INTENSITY_BINS, np.int64)
    for chunk in slide.chunks():
        for start in range(0, len(chunk), 8192):
            block = chunk[start : start + 8192].astype(np.float64)
            gram += (block.T @ block).astype(np.int64)
            squared = np.einsum("ij,ij->i", block, block)
            histogram += np.bincount(intensity_bins(squared), minlength=INTENSITY_BINS)
    return gram, histogram


def reference_ranges(slide, projection):
    """The definition, block by block."""
    components = len(projection.weights)
    counts = np.zeros(components * RANGE_BINS, np.int64)
    for chunk in slide.chunks():
        for start in range(0, len(chunk), 8192):
            values, _ = projection.components(chunk[start : start + 8192])
            place = np.floor((values + 1.0) * RANGE_UNITS).astype(np.int64)
            place = np.clip(place, 0, RANGE_BINS - 1) + np.arange(components) * RANGE_BINS
            counts += np.bincount(place.ravel(), minlength=counts.size)
    return counts.reshape(components, RANGE_BINS)


class Held(InMemory):
    """A slide in memory with a shape."""

    def __init__(self, pixels):
        super().__init__(pixels)
        self.shape = (len(pixels) // 1000, 1000, len(BANDS))
        self.pixels = len(pixels)


def pass_figures(pixels, turns):
    """CPU ns per pixel of each pass and of what it replaced, medians of turns."""
    slide = Held(pixels)
    codec = fit(pixels)
    gram, histogram = reference_survey(slide)
    ours = survey(slide)
    assert np.array_equal(ours.gram, gram), "the survey differs"
    assert np.array_equal(ours.histogram, histogram), "the survey differs"
    expected = reference_ranges(slide, codec.projection)
    found = component_ranges(slide, codec.projection).histogram
    assert np.array_equal(found, expected), "the ranges differ"
    spec = replace(SPEC, domain=codec.identity)

    def count():
        counter = PixelCounter(codec, spec)
        count_slides([slide], counter, codec)

    works = {
        "survey": lambda: survey(slide),
        "survey, as before": lambda: reference_survey(slide),
        "ranges": lambda: component_ranges(slide, codec.projection),
        "ranges, as before": lambda: reference_ranges(slide, codec.projection),
        "count": count,
    }
    count()  # compiles
    spent = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            start = time.process_time_ns()
            work()
            spent[name].append((time.process_time_ns() - start) / len(pixels))
    figures = {name: round(float(np.median(each)), 1) for name, each in spent.items()}
    figures["all passes"] = round(sum(figures[name] for name in ("survey", "ranges", "count")), 1)
    before = ("survey, as before", "ranges, as before", "count")
    figures["all passes, as before"] = round(sum(figures[name] for name in before), 1)
    return {"cpu_ns_per_pixel": figures, "pixels": len(pixels), "turns": turns}


def make_site(root, total, each):
    """A site whose data folder has ``total`` pixels under many names; how many names."""
    site = SiteFolder(root / "site")
    data = site.root / "images"
    data.mkdir(parents=True)
    site.worker.mkdir()
    site.settings_file.write_text(
        'v = 1\nfederation = "bench"\nsite = "bench"\naddress = "localhost:1"\n'
        f'data = "images"\napp_sha256 = "{"0" * 64}"\n'
    )
    write_federation_key(site.federation_key, FederationKey(bytes(range(16))))
    (root / "plan.toml").write_text(PLAN.format(bands=json.dumps(list(BANDS))))
    (data / "bands.txt").write_text("\n".join(BANDS))
    first = data / "slide-00000.npy"
    pixels = write_slide(np.random.default_rng(SEED), first, each)
    names = max(1, round(total / pixels))
    for number in range(1, names):
        os.link(first, data / f"slide-{number:05}.npy")
    return site, names, pixels * names


def passes_over_all(site, plan_file, results, threads):
    """Survey, ranges, count, tables, as a worker does; the codec, counts and figures."""
    plan = read_plan(plan_file)
    slides = Slides(site.data(), plan.pixels.bands)
    words = ShardWords(str(site.root), str(plan_file), "survey", None, str(results), threads)
    first = open_pass(words)
    figures = {}

    def timed(name, work):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        figures[name] = {
            "wall_s": round(time.perf_counter() - wall, 2),
            "cpu_s": round(time.process_time() - cpu, 2),
        }
        return result

    def of_phase(phase, codec):
        task = slide_task(plan, phase, codec)
        spec = first.spec if codec is None else replace(first.spec, domain=codec.identity)
        folder = results / phase
        folder.mkdir(parents=True, exist_ok=True)
        return task.slide_pass(spec, folder, threads)

    seen, _ = timed("survey", lambda: slides.found(of_phase("survey", None), "survey"))
    widest = fit_widest(plan.pixels, seen)
    ranges, _ = timed("ranges", lambda: slides.found(of_phase("range", widest), "ranges"))
    codec = fit_ranges(plan.pixels, widest, ranges)
    whole = of_phase("sketch", codec)
    counts, _ = timed("count", lambda: slides.found(whole, "count"))
    tables = timed("tables", lambda: tables_of(codec, whole.spec, 10, counts.merged()))
    assert tables.presence.table.any()
    return codec, counts, figures


def by_shards(site, root, codec, shards, at_once):
    """The count by commands; the merged counts and figures."""
    (root / "codec.json").write_text(codec_text(codec))
    results = root / "shards"
    named = ["--plan", root / "plan.toml", "--phase", "sketch", "--codec", root / "codec.json"]
    named += ["--results", results, "--site-dir", site.root]

    def cairn(*words):
        """Run a command; its seconds, and the most memory that it was seen to have, in MB."""
        command = [sys.executable, "-m", "site_client.cli", "pixels", *map(str, words)]
        start, largest = time.perf_counter(), 0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                largest = max(largest, most_memory(process.pid))
                time.sleep(0.1)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return time.perf_counter() - start, largest

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        texts = [f"{number}/{shards}" for number in range(1, shards + 1)]
        each = list(pool.map(lambda text: cairn("count", "--shard", text, *named), texts))
    counted = time.perf_counter()
    _, of_merging = cairn("merge", *named)
    ended, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ShardWords(
        str(site.root), str(root / "plan.toml"), "sketch", str(root / "codec.json"), str(results)
    )
    whole = open_pass(words)
    sealed = open_sealed(merged_file(whole.folder), whole.bond)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = {
        "shards": shards,
        "at_once": at_once,
        "count_wall_s": round(counted - start, 2),
        "merge_wall_s": round(ended - counted, 2),
        "cpu_s": round(spent, 2),
        "median_shard_s": round(float(np.median([seconds for seconds, _ in each])), 2),
        "largest_process_MB": max(of_merging, *(largest for _, largest in each)),
    }
    return read_part(sealed, whole.section, whole.codec).found, figures


def equal(one, other):
    """Whether two sites' counts are the same keys with the same counts; how many keys."""
    ours, theirs = (
        [np.concatenate(e) for e in zip(*c.merged(), strict=True)] for c in (one, other)
    )
    assert one.pixels == other.pixels, "shards and one process took other pixels"
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a, b), "shards and one process differ"
    return int(ours[0].size)


def run(options):
    total = int(options.pixels)
    figures = {"pixels_asked": total, "seed": SEED, "load_before": load()}
    with tempfile.TemporaryDirectory(prefix="cairn-big-", dir=options.folder) as name:
        root = Path(name)
        site, names, pixels = make_site(root, total, int(options.each))
        figures |= {"pixels": pixels, "names": names, "bytes_read_a_pass": pixels * 2 * len(BANDS)}
        if "whole" in options.only:
            forget_most_memory()
            codec, counts, figures["whole"] = passes_over_all(
                site, root / "plan.toml", root / "alone", options.threads
            )
            largest = most_memory(os.getpid())
            steps = figures["whole"].values()
            figures["whole"] |= {
                "threads": options.threads,
                "all": {
                    "wall_s": round(sum(step["wall_s"] for step in steps), 2),
                    "cpu_ns_per_pixel": round(sum(s["cpu_s"] for s in steps) / pixels * 1e9, 1),
                },
                "largest_MB": largest,
            }
        else:
            first = open_slide(site.data() / "slide-00000.npy", BANDS)
            few = np.concatenate([c for _, c in zip(range(16), first.chunks(), strict=False)])
            codec, counts = fit(few), None
        if "shards" in options.only:
            merged, figures["shards"] = by_shards(
                site, root, codec, options.shards, options.at_once
            )
            if counts is not None:
                figures["shards"]["different_keys_equal"] = equal(counts, merged)
    if "passes" in options.only:
        sample = tissue(np.random.default_rng(SEED), 1_000_000)
        figures["passes"] = pass_figures(sample, options.turns)
    figures["load_after"] = load()
    return figures


def most_memory(process):
    """The most memory that a process had so far, in MB; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return round(int(lines[0].split()[1]) / 1024) if lines else 0


def forget_most_memory():
    """From now on, the most memory of this process is what it has from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def load():
    return round(os.getloadavg()[0], 1)


def main():
    parser = argparse.ArgumentParser(prog="big_slides", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pixels", type=float, default=1e8)
    parser.add_argument("--each", type=float, default=5e7, help="pixels under one name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=2, help="shards that run at a time")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where slides lie; default: the temporary one")
    parser.add_argument("--only", nargs="+", default=["passes", "whole", "shards"])
    parser.add_argument("-o", "--output", type=Path, help="folder of computed results")
    options = parser.parse_args()
    threadpool_limits(1)
    job = f"{options.pixels:.0e} pixels, {' '.join(options.only)}".replace("e+0", "e")
    figures = run(options) | {
        "cores": os.cpu_count(),
        "job": job,
        "processor": platform.machine(),
        "python": platform.python_version(),
    }
    print(json.dumps(figures, indent=2))
    if options.output is not None:
        place = options.output / "big" / f"{job.replace(', ', '__').replace(' ', '_')}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(figures, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

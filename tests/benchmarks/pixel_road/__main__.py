"""Compute studies that are not computed yet, or write the report. See the package."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.pixel_road import fields, recovery, scene, tumour
from tests.benchmarks.pixel_road.report import render, write_report

SEEDS = (0, 1)


def of_program(module):
    """Another benchmark's own JSON, as a job."""

    def jobs(_seeds, _per_site):
        def job():
            words = [sys.executable, "-m", f"tests.benchmarks.{module}", "--json"]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, encoding="utf-8")
            return json.loads(done.stdout)

        yield "all", job

    return jobs


STUDIES = {
    "recovery": recovery.jobs,
    "gate": recovery.gate_jobs,
    "tumour": tumour.jobs,
    "demo": scene.federations,
    "k-means": scene.plain,
    "speed": of_program("pixels"),
    "attack": of_program("sketch_attack"),
}
ON_TISSUE = ("recovery", "gate", "tumour")


def main():
    parser = argparse.ArgumentParser(prog="pixel_road", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/pixel-results"))
    what = parser.add_subparsers(dest="what", required=True)
    run = what.add_parser("run", help="compute; what has a file already is left alone")
    run.add_argument("studies", nargs="+", choices=list(STUDIES))
    run.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    run.add_argument("--only", default="", help="only jobs whose name contains this")
    run.add_argument("--per-site", type=int, default=0, help="tissue fields of a site; 0: all")
    report = what.add_parser("report", help="write PIXELS.md from what is there")
    check = what.add_parser("check", help="whether PIXELS.md is what its figures say")
    for each in (report, check):
        each.add_argument("-o", "--output", type=Path, default=Path("deploy/results"))
    arguments = parser.parse_args()
    if arguments.what == "report":
        write_report(arguments.folder, arguments.output)
        return
    if arguments.what == "check":
        figures = json.loads((arguments.output / "pixels.json").read_text(encoding="utf-8"))
        if (arguments.output / "PIXELS.md").read_text(encoding="utf-8") != render(figures):
            sys.exit("PIXELS.md is not what pixels.json says; write it with: pixel_road report")
        return
    for study in arguments.studies:
        if study in ON_TISSUE and not fields.FIELDS.is_dir():
            print(f"{study}: skipped, no {fields.FIELDS.name} beside the checkout", flush=True)
            continue
        folder = arguments.folder / study
        if study in ON_TISSUE and arguments.per_site:  # never mixed with figures of all fields
            folder = arguments.folder / f"{arguments.per_site}-per-site" / study
        for name, job in STUDIES[study](arguments.seeds, arguments.per_site):
            if arguments.only in name:
                compute(folder, name, job)


def compute(folder, name, job):
    file = folder / (name.replace("/", "__").replace(" ", "_") + ".json")
    if file.exists():
        return
    began, spent = time.monotonic(), time.process_time()
    result = job()
    whole = {
        "job": name,
        "wall_s": round(time.monotonic() - began, 1),
        "process_cpu_s": round(time.process_time() - spent, 1),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **result,
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(whole, sort_keys=True) + "\n", encoding="utf-8")
    partial.rename(file)
    print(f"{folder.name}/{name}: {whole['wall_s']:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Compute what is not computed yet, or write it into PIXELS.md. See the package."""

import argparse
from pathlib import Path

from tests.benchmarks.founding.studies import ARMS, STUDIES, jobs
from tests.benchmarks.pixel_road import fields
from tests.benchmarks.pixel_road.__main__ import compute
from tests.benchmarks.pixel_road.report import write_report


def main():
    parser = argparse.ArgumentParser(prog="founding", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/pixel-results"))
    what = parser.add_subparsers(dest="what", required=True)
    run = what.add_parser("run", help="compute; what has a file already is left alone")
    run.add_argument("studies", nargs="+", choices=list(STUDIES))
    run.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    run.add_argument("--arms", nargs="+", choices=(*ARMS, "commands"), default=ARMS)
    report = what.add_parser("report", help="write PIXELS.md, this experiment in it")
    report.add_argument("-o", "--output", type=Path, default=Path("deploy/results"))
    arguments = parser.parse_args()
    if arguments.what == "report":
        write_report(arguments.folder, arguments.output)
        return
    for study in arguments.studies:
        if study == "tissue" and not fields.FIELDS.is_dir():
            print(f"{study}: skipped, no {fields.FIELDS.name} beside the checkout", flush=True)
            continue
        for name, job in jobs(study, arguments.seeds, arguments.arms):
            compute(arguments.folder / "founding", name, job)


if __name__ == "__main__":
    main()

"""Compute studies that are not computed yet, or write the page. See the package."""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from tests.benchmarks.task_results.report import report
from tests.benchmarks.task_results.studies import STUDIES


def main() -> None:
    parser = argparse.ArgumentParser(prog="task_results", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("deploy/results"))
    what = parser.add_subparsers(dest="what", required=True)
    run = what.add_parser("run", help="compute; what is in tasks.json already is left alone")
    run.add_argument("studies", nargs="+", choices=list(STUDIES))
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    what.add_parser("report", help="write TASKS.md from tasks.json")
    arguments = parser.parse_args()
    figures = arguments.folder / "tasks.json"
    known = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
    if arguments.what == "report":
        (arguments.folder / "TASKS.md").write_text(report(known), encoding="utf-8")
        return
    torch.set_num_threads(1)
    for study in arguments.studies:
        make, absent = STUDIES[study].jobs, STUDIES[study].absent()
        if absent:
            print(f"{study}: skipped, no {absent}", flush=True)
            continue
        for name, job in make(arguments.seeds):
            if name in known.get(study, {}):
                continue
            began = time.monotonic()
            result = {"torch": torch.__version__, "processor": platform.machine(), **job()}
            known.setdefault(study, {})[name] = result
            figures.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(f"{study}/{name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Compute studies that are not computed yet, or write the page. See the package."""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from tests.benchmarks.agent_results import data
from tests.benchmarks.learner_results.absence import absent
from tests.benchmarks.learner_results.budgets import learners, networks
from tests.benchmarks.learner_results.new_site import new_site
from tests.benchmarks.learner_results.report import report

STUDIES = {"absent": absent, "learners": learners, "networks": networks, "new-site": new_site}
_NEEDS = ("ceph", "brain_templates")


def main() -> None:
    parser = argparse.ArgumentParser(prog="learner_results", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("deploy/results"))
    what = parser.add_subparsers(dest="what", required=True)
    run = what.add_parser("run", help="compute; what is in learners.json already is left alone")
    run.add_argument("studies", nargs="+", choices=list(STUDIES))
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--only", default="", help="only jobs whose name contains this")
    what.add_parser("report", help="write LEARNERS.md from learners.json")
    arguments = parser.parse_args()
    figures = arguments.folder / "learners.json"
    if arguments.what == "report":
        known = json.loads(figures.read_text(encoding="utf-8"))
        (arguments.folder / "LEARNERS.md").write_text(report(known), encoding="utf-8")
        return
    if lacking := [name for name in _NEEDS if not data.present(name)]:
        print(f"skipped, no {', '.join(lacking)} in {data.FOLDER.name}", flush=True)
        return
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for study in arguments.studies:
        for name, job in STUDIES[study](arguments.seeds):
            # Read again: other seeds may be computed beside this.
            known = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
            if name in known.get(study, {}) or arguments.only not in name:
                continue
            began = time.monotonic()
            result = {"torch": torch.__version__, "processor": platform.machine(), **job()}
            known = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
            known.setdefault(study, {})[name] = result
            figures.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(f"{study}/{name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Compute studies that are not computed yet, or write the report. See the package."""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tests.benchmarks.agent_results import (
    comparisons,
    contrast_studies,
    data,
    experience,
    heatmap_studies,
    outlines,
    search_studies,
    short_studies,
    studies,
)
from tests.benchmarks.agent_results.report import write_report


def _all(*makers: Callable[[list[int]], Iterator[studies.Job]]):
    """Jobs of several makers, as one study: their rows stand in one table."""
    return lambda seeds: itertools.chain.from_iterable(make(seeds) for make in makers)


STUDIES = {
    "brain": (_all(studies.brain, heatmap_studies.brain), ["brain_templates"]),
    "cephalograms": (
        _all(studies.cephalograms, studies.longer_cephalograms, heatmap_studies.cephalograms),
        ["ceph"],
    ),
    "short": (short_studies.short, ["ceph"]),
    "contrasts": (contrast_studies.contrasts, ["brain_templates"]),
    "fetal": (studies.fetal, ["hc18"]),
    "outlines": (outlines.outlines, ["hc18"]),
    "modalities": (studies.modalities, ["brain_templates", "ceph", "hc18"]),
    "federated-cephalograms": (comparisons.federated_cephalograms, ["ceph"]),
    "federated-brain": (comparisons.federated_brain, ["brain_templates"]),
    "replay": (comparisons.replay, ["ceph"]),
    "experience": (experience.replays, ["ceph"]),
    "boxes": (search_studies.boxes, ["hc18"]),
    "planes": (search_studies.planes, ["brain_templates"]),
    "registrations": (search_studies.registrations, ["brain_templates"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="agent_results", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/agent-results"))
    what = parser.add_subparsers(dest="what", required=True)
    run = what.add_parser("run", help="compute; what has a file already is left alone")
    run.add_argument("studies", nargs="+", choices=list(STUDIES))
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--only", default="", help="only jobs whose name contains this")
    report = what.add_parser("report", help="write RESULTS.md from what is there")
    report.add_argument("-o", "--output", type=Path, default=Path("deploy/results"))
    arguments = parser.parse_args()
    if arguments.what == "report":
        write_report(arguments.folder, arguments.output)
        return
    torch.set_num_threads(1)
    for study in arguments.studies:
        make, needs = STUDIES[study]
        absent = [name for name in needs if not data.present(name)]
        if absent:
            print(f"{study}: skipped, no {', '.join(absent)} in {data.FOLDER.name}", flush=True)
            continue
        for name, job in make(arguments.seeds):
            if arguments.only in name:
                _compute(arguments.folder / study, name, job)


def _compute(folder: Path, name: str, job: studies.Job) -> None:
    file = folder / (name.replace("/", "__").replace(" ", "_") + ".json")
    if file.exists():
        return
    began = time.monotonic()
    result = job()
    whole = {
        "job": name,
        "wall_s": round(time.monotonic() - began, 1),
        "torch": torch.__version__,
        "processor": platform.machine(),
        **result,
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.rename(file)
    print(f"{folder.name}/{name}: {_headline(whole)} ({whole['wall_s']:.0f} s)", flush=True)


def _headline(result: dict) -> str:
    parts = []
    for pose in ("posed", "native"):
        # Boxes and planes have figures of their own.
        if isinstance(figures := result.get(pose), dict) and "mean" in figures:
            parts.append(
                f"{pose} {figures['mean']:.2f} mm (prior {figures['prior']:.1f}, "
                f"{figures['far']:.1%} far, consensus {figures['consensus']:.2f})"
            )
    return "; ".join(parts) or ", ".join(k for k in result if isinstance(result[k], dict))


if __name__ == "__main__":
    main()

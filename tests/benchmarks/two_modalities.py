"""One agent for X-rays of skulls and ultrasound of fetal heads, federated by the product.

Three sites, each with images of one kind: two with cephalograms, one with fetal heads.
Nobody has the others' landmarks. The run is a whole one in memory: workers, doors, ledgers
and verified sums are real, the transport is not. What is measured, on images that no site
trained on: each site's own weights after the run, with heads averaged over the sites that
have them (``task.missing``) and with private heads; beside a constant predictor.

The images lie in ``../shared/data`` and are not part of the project.

    python -m tests.benchmarks.two_modalities [--updates 1800] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from common.plan import FederationPlan, parse_plan
from site_client.agent.federated import evaluate_weights
from site_client.agent.tasks.landmark2d import Case2D
from site_client.imaging.landmarks import write_landmarks
from site_client.site import SiteFolder
from site_client.worker.models import Models
from site_client.worker.site_cases import read_site_cases
from tests.benchmarks.agent_results import data
from tests.federation.conftest import Federation

XRAY = ("sella", "nasion", "menton", "gonion")
FETAL = ("centre", "OFD left", "OFD right")
SITES = {"clinic-a": "x-ray", "clinic-b": "x-ray", "maternity": "ultrasound"}
TRAINED, HELD_OUT = 30, 12
"""Images of each site, and of each kind beside them."""
VARIANTS = {
    "heads of the sites that have them": ({"missing": "allow"}, {}),
    "private heads": ({"missing": "allow"}, {"private_heads": True}),
}
SEED = 7


def plan_of(updates: int, task: dict[str, object], network: dict[str, object]) -> FederationPlan:
    """Two kinds of image, seven landmarks, coarse enough for one core."""
    return parse_plan(
        {
            "name": "two-modalities",
            "seed": SEED,
            "task": {
                "kind": "landmark-2d",
                "landmarks": [*XRAY, *FETAL],
                "interchangeable": [["OFD left", "OFD right"]],
                "spacing_mm": 1.0,
                "roi": 33,
                "zooms": [1.0, 3.0],
                **task,
            },
            "ladder": {"scales": [3.0, 1.0], "steps_mm": [8.0, 2.0]},
            "network": {"width": 8, **network},
            "learner": {"updates": updates, "batch": 32, "searches": 16, "warm_start": 0.5},
            "pose": {"rotation_deg": 10.0, "shift_mm": 5.0},
            "evaluation": {"starts": 1, "most_steps": 40},
            "experience": {"columns": 4000},
            "rounds": {"training": 6, "quorum": 3, "deadline_s": 600.0, "server_momentum": 0.5},
        }
    )


def write_cases(folder: Path, cases: Sequence[Case2D], names: Sequence[str]) -> None:
    """Write images, with their landmarks of these names, as a hospital has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        image = sitk.GetImageFromArray(case.image[0])
        image.SetSpacing(case.spacing_mm)
        sitk.WriteImage(image, str(folder / f"case{number}.nii.gz"))
        points = zip(names, case.landmarks_mm, strict=True)
        marks = {n: np.array([*at, 0.0]) for n, at in points if np.isfinite(at).all()}
        write_landmarks(folder / f"case{number}.mrk.json", marks)


def images() -> dict[str, list[Case2D]]:
    """Both kinds in a seeded order; one image of a fetus."""
    rng = np.random.default_rng(SEED)
    rays, _, _ = data.cephalogram_cases()
    columns = [data.CEPHALOGRAM_LANDMARKS.index(name) for name in XRAY]
    rays = [Case2D(c.name, c.image, c.spacing_mm, c.landmarks_mm[columns], c.group) for c in rays]
    heads = data.fetal_heads()
    columns = [data.FETAL_LANDMARKS.index(name) for name in FETAL]
    _, first = np.unique(heads.fetus, return_index=True)
    chosen = [heads.cases[k] for k in first]
    fetuses = [
        Case2D(c.name, c.image, c.spacing_mm, c.landmarks_mm[columns], c.group) for c in chosen
    ]
    whole = [c for c in fetuses if np.isfinite(c.landmarks_mm).all()]
    return {
        kind: [cases[k] for k in rng.permutation(len(cases))]
        for kind, cases in (("x-ray", rays), ("ultrasound", whole))
    }


def measure(root: Path, plan: FederationPlan) -> dict[str, dict[str, dict[str, float]]]:
    """Run a plan; by site and landmark the errors on held-out images of the site's kind, mm."""
    federation, pool = Federation(root), images()
    names = {"x-ray": XRAY, "ultrasound": FETAL}
    for kind, cases in pool.items():
        write_cases(root / "held-out" / kind, cases[:HELD_OUT], names[kind])
    begins = dict.fromkeys(pool, HELD_OUT)
    for name, kind in SITES.items():
        site = federation.add_site(name, images=TRAINED)
        part = pool[kind][begins[kind] : begins[kind] + TRAINED]
        begins[kind] += TRAINED
        write_cases(site.data(), part, names[kind])
    store = federation.create_run(plan, min_sites=len(SITES))
    finished = federation.conduct(store, federation.transport())
    if finished.verdict != "COMPLETED":
        raise SystemExit(f"{finished.verdict}: {finished.reason}")
    return {
        name: errors_of(site, root / "held-out" / SITES[name], plan, finished.model_sha256)
        for name, site in federation.sites.items()
    }


def errors_of(
    site: SiteFolder, held_out: Path, plan: FederationPlan, digest: str
) -> dict[str, dict[str, float]]:
    """Measure what a site holds after the run; the constant is of the images it trained on."""
    trained, testing = (
        read_site_cases(folder, plan, lambda *_: None) for folder in (site.data(), held_out)
    )
    weights = Models(site.worker / "models").whole(digest)
    report = evaluate_weights(
        weights, plan, testing.task, SEED, trained.prior, trained.labels, poses=2
    )
    return {
        name: {
            "mean": round(summary.mean, 2),
            "median": round(summary.median, 2),
            "prior": round(summary.prior or 0.0, 2),
        }
        for name, summary in report.posed.items()
    }


def main() -> None:
    """Run every variant and print what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=1800)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not (data.present("ceph") and data.present("hc18")):
        raise SystemExit("the images are not there: ceph and hc18 in ../shared/data")
    logging.disable(logging.WARNING)
    found: dict[str, object] = {}
    for name, (task, network) in VARIANTS.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            sites = measure(Path(folder), plan_of(asked.updates, task, network))
        found[name] = {"seconds": round(time.monotonic() - began), "sites": sites}
        if not asked.json:
            sys.stdout.write(f"{name}\n")
            for site, errors in sites.items():
                for label, row in errors.items():
                    figures = "  ".join(f"{key} {value:6.2f}" for key, value in row.items())
                    sys.stdout.write(f"  {site:10} {label:12} {figures} mm\n")
            sys.stdout.flush()
    if asked.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

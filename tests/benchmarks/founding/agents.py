"""Pass three: agents that look for the landmarks, together, alone, and with all images.

The federation is one again: sites with doors, updates as fixed-point sums with tags, sums
that every site verifies, weights that every site derives itself. Single sites and *pooled*
train the same plan's learner in this process. All are judged on the same searches of the
held-out subjects of all sites.
"""

import time

import numpy as np

from common.plan import parse_plan
from site_client.agent.federated import evaluate_weights, planned_learner
from site_client.imaging.case_sets import Cases
from site_client.worker.site_cases import SiteCases, read_site_cases
from tests.benchmarks.founding.road import federation_of
from tests.benchmarks.founding.stacks import SITES
from tests.conftest import loosen


def agent_plan(data, seed, sections):
    """The plan of the agents: ``landmark-2d`` by the paper's network, four channels."""
    unit = data.pixel_mm * sections["working_pixels"]
    ladder = sections["ladder"]
    return parse_plan(
        {
            "name": f"founding-{data.name}-agent",
            "seed": seed,
            "task": {
                "kind": "landmark-2d",
                "landmarks": data.landmarks,
                "channels": 4,
                "spacing_mm": unit,
                "roi": sections["roi"],
                "zooms": sections["zooms"],
            },
            "network": {"architecture": "paper2d"},
            "ladder": {
                "scales": ladder["scales"],
                "steps_mm": [step * unit for step in ladder["steps"]],
            },
            "pose": {
                "rotation_deg": sections["rotation_deg"],
                "shift_mm": sections["shift"] * unit,
            },
            "learner": sections["learner"],
            "evaluation": {"starts": sections["starts"], "poses": sections["poses"]},
            "experience": {"rows": 3, "columns": 2000},
            "rounds": {
                "training": sections["rounds"],
                "quorum": 3,
                "deadline_s": 3600.0,
                "server_momentum": sections["momentum"],
            },
            "limits": {"min_images": 2},
        }
    )


def served(site):
    """A policy under which small plans run, and ones about pixels of a microscope.

    By default a hospital's has no grid finer than half a millimetre.
    """
    ranges = {"spacing_mm": "[0.001, 4.0]", "view_mm": "[0.01, 400.0]", "steps_mm": "[0.001, 30.0]"}
    loosen(site, **ranges)


def federate(root, plan, folders):
    """A run of all rounds; the weights at its end, and its processor seconds."""
    began = time.process_time()
    federation = federation_of(root, folders, served)
    store, transport = federation.create_run(plan, min_sites=3), federation.transport()
    finished = federation.conduct(store, transport)
    if finished.verdict != "COMPLETED":
        raise RuntimeError(f"training: {finished.verdict} {finished.reason}")
    sent = sum(len(reply) for replies in transport.sent.values() for reply in replies)
    return weights_of(store), time.process_time() - began, sent // len(SITES)


def weights_of(store):
    """The weights that a finished run came to."""
    arrays = store.load(store.finished_rounds()[-1]).arrays
    return {
        name.removeprefix("model/"): np.array(array)
        for name, array in arrays.items()
        if name.startswith("model/")
    }


def alone(plan, cases, seed, updates):
    """The weights of one learner over some cases, as many gradient steps as said."""
    began = time.process_time()
    longer = plan.learner.model_copy(update={"updates": updates})
    plan = plan.model_copy(update={"learner": longer})
    learner = planned_learner(plan, cases.task, seed)
    learner.train(updates)
    return learner.weights(), time.process_time() - began


def read(folder, plan):
    return read_site_cases(folder, plan, lambda *_: None)


def pooled(sites):
    """All sites' cases as those of one."""
    first = sites[0].cases
    pictures = tuple(case for site in sites for case in site.cases.pictures)
    return SiteCases(Cases(first.landmarks, pictures=pictures), sites[0].plan)


def judge(weights, plan, held_out, prior, tolerance_mm):
    """What a table needs of the searches of the held-out cases."""
    report = evaluate_weights(
        weights, plan, held_out.task, 1000 + plan.seed, prior, plan.task.landmarks, native=True
    )
    return {
        "posed": _figures(report.posed_searches, tolerance_mm),
        "native": _figures(report.native_searches, tolerance_mm),
    }


def _figures(searched, tolerance_mm):
    errors, agreed, prior = searched.errors, searched.agreed_errors, searched.prior_errors
    return {
        "searches": int(errors.size),
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "consensus": float(agreed.mean()),
        "consensus_median": float(np.median(agreed)),
        "within": float((agreed <= tolerance_mm).mean()),
        "prior": float(prior.mean()),
        "prior_median": float(np.median(prior)),
        "prior_within": float((prior <= tolerance_mm).mean()),
    }

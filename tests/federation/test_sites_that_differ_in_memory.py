"""Whole runs of sites that differ: in what they have marked, in what they image, in their heads.

Real images, learners, doors and sums; every order meets a worker that was started anew.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import ExitStack

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from click.testing import CliRunner

from aggregator.cli import cli as aggregator
from aggregator.report.run import sites_with
from aggregator.report.state import fold
from aggregator.rounds.events import SiteReplied
from common.audit.cli import cli as auditor
from common.checkpoint import loaded_weights
from common.errors import RefusedError
from common.model import (
    initial_weights,
    own_part,
    shared_part,
    shared_shapes,
    weight_shapes,
    weights_digest,
)
from common.plan import parse_plan
from common.sums.addition import decode_sum
from common.wire.codes import ReplyCode
from common.wire.envelope import decode, unpack
from common.wire.labels import LABELS, branch_rows
from common.wire.parcel import unwrap
from common.wire.rules import FIXED_POINT
from site_client.agent.federated import evaluate_weights
from site_client.agent_app.checkpoint import read_checkpoint
from site_client.cli import cli as site_program
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from site_client.kept import KeptModels
from site_client.worker.loop import Worker
from site_client.worker.setup import sketch_spec
from site_client.worker.site_cases import read_site_cases
from site_client.worker.study import Subject
from site_client.worker.training import _EVALUATION_SEED, task_error
from tests.conftest import SMALL_PLAN, write_case
from tests.federation import conftest
from tests.federation.conftest import Federation

LEARNER = SMALL_PLAN["learner"] | {"updates": 24}
ROUNDS = {"training": 2, "quorum": 2, "deadline_s": 60.0}


def plan_of(*, task=None, network=None, **sections):
    return parse_plan(
        SMALL_PLAN
        | {"learner": LEARNER, "rounds": ROUNDS}
        | sections
        | {"task": SMALL_PLAN["task"] | (task or {})}
        | {"network": SMALL_PLAN["network"] | (network or {})}
    )


def keep(folder, number, names):
    """Of what a case has, only some landmarks."""
    path = folder / f"case{number}.mrk.json"
    marked = read_landmarks(path)
    write_landmarks(path, {name: marked[name] for name in names})


def add_site(federation, name, marked):
    """A site of little heads, each with some of the landmarks A and B."""
    site = federation.add_site(name, images=len(marked))
    policy = site.policy_file.read_text()
    site.policy_file.write_text(re.sub(r"(?m)^share = 0\.2$", "share = 0.0", policy))
    for number, names in enumerate(marked):
        write_case(site.data(), f"case{number}", number)
        keep(site.data(), number, names)
    return site


def kept(site, digest):
    """All weights of a model that a site keeps, its own heads among them."""
    file = KeptModels.of_site(site.root).weights_file(digest)
    return loaded_weights(file.read_bytes())


def updates(transport, round_):
    """By node, the update of a round; orders of a site come one a round."""
    return {
        node: decode(unwrap(replies[round_])["ModelUpdate.envelope"])
        for node, replies in transport.sent.items()
    }


def report(transport, node, round_):
    return decode(unwrap(transport.sent[node][round_])["RoundReport.envelope"]).record


def sum_of(store, round_):
    return decode_sum(store.sum_of(round_)).group("ModelUpdate").summand


def models(store):
    return [store.load(number).below("model") for number in (0, 1, 2)]


def rows_moved(plan, before, after):
    """bool[labels]: whose rows changed in any array."""
    labels = len(plan.space.labels)
    moved = [
        (after[name] != before[name]).reshape(labels, -1).any(axis=1) for name in branch_rows(plan)
    ]
    return np.any(moved, axis=0).tolist()


# Missing landmarks.


@pytest.fixture
def lacking(federation):
    """One site with both landmarks, one without B, one where too few images have A."""
    add_site(federation, "site-a", ["AB", "AB", "AB"])
    add_site(federation, "site-b", ["A", "A", "A", "A"])
    add_site(federation, "site-c", ["B", "B", "AB"])
    return federation


@pytest.mark.parametrize("momentum", [pytest.param(0.0, marks=pytest.mark.slow), 0.7])
def test_heads_are_averaged_over_the_sites_that_have_their_landmark(lacking, momentum):
    plan = plan_of(task={"missing": "allow"}, rounds=ROUNDS | {"server_momentum": momentum})
    store, transport = lacking.create_run(plan, min_sites=3), lacking.transport()
    finished = lacking.conduct(store, transport)
    assert (finished.verdict, finished.rounds) == ("COMPLETED", 2)
    has = {100: [1, 1], 101: [1, 0], 102: [0, 1]}
    samples = {100: 3, 101: 4, 102: 3}
    for round_ in (1, 2):
        sent = updates(transport, round_)
        assert {node: u.arrays[LABELS].tolist() for node, u in sent.items()} == has
        assert {node: u.record.samples for node, u in sent.items()} == samples
        for node in sent:
            told = {error.label for error in report(transport, node, round_).errors}
            assert told == {label for label, own in zip("AB", has[node], strict=True) if own}
    start, after, _ = models(store)
    sent, share = updates(transport, 1), 1 + momentum  # the first step's, in Nesterov's form
    for name, array in start.items():
        rows = branch_rows(plan).get(name, 0)
        deltas = {node: np.float64(u.arrays[name]) / FIXED_POINT for node, u in sent.items()}
        expected = np.zeros(array.shape)
        for row in range(len(array)):
            having = [n for n in sent if not rows or has[n][row // rows]]
            weight = sum(samples[n] for n in having)
            expected[row] = sum(samples[n] * deltas[n][row] for n in having) / weight
        np.testing.assert_allclose(after[name], array + share * expected, rtol=0, atol=2e-6)
    assert sites_with(fold(lacking.events(store))) == {
        "A": ("site-a", "site-b"),
        "B": ("site-a", "site-c"),
    }
    for site in lacking.sites.values():
        chain = site.worker / "state" / store.name / "chain.safetensors"
        _, arrays = unpack(chain.read_bytes())
        own = {n.removeprefix("weights/"): a for n, a in arrays.items() if "weights/" in n}
        assert weights_digest(own) == finished.model_sha256


def test_the_model_of_sites_that_lack_landmarks_is_computed_again_from_its_sums(lacking, tmp_path):
    plan = plan_of(task={"missing": "allow"}, rounds=ROUNDS | {"server_momentum": 0.7})
    lacking.conduct(lacking.create_run(plan, min_sites=3), lacking.transport())
    folder = tmp_path / "model"
    out = ["model", "latest", "-o", folder, "--sums", "--dir", lacking.folder.root]
    CliRunner().invoke(aggregator, [str(word) for word in out], catch_exceptions=False)
    ledgers = [word for s in lacking.sites.values() for word in ("--ledger", str(s.ledger))]
    done = CliRunner().invoke(auditor, ["model", str(folder), *ledgers, "--json"])
    assert all(check["holds"] for check in json.loads(done.stdout)["checks"]), done.stdout
    assert read_checkpoint(folder).landmarks == ("A", "B")


def test_without_the_option_a_site_that_lacks_a_landmark_is_bad_data(lacking):
    plan = plan_of()
    store = lacking.create_run(plan, min_sites=3)
    finished = lacking.conduct(store, lacking.transport())
    assert finished.verdict == "FAILED"
    told = {e.site: e.code for e in lacking.events(store) if isinstance(e, SiteReplied)}
    assert told["site-a"] == ReplyCode.OK
    assert told["site-b"] == told["site-c"] == ReplyCode.BAD_DATA


def test_where_nothing_lacks_the_option_changes_no_weight(federation):
    for name in ("site-a", "site-b"):
        add_site(federation, name, ["AB", "AB"])
    digests = []
    for run, missing in (("run-1", "refuse"), ("run-2", "allow")):
        plan = plan_of(task={"missing": missing})
        store, transport = federation.create_run(plan, run, min_sites=2), federation.transport()
        digests.append(federation.conduct(store, transport).model_sha256)
        assert (LABELS in updates(transport, 1)[100].arrays) == (missing == "allow")
    assert digests[0] == digests[1]


def test_a_head_rests_while_its_only_site_is_away(lacking):
    plan = plan_of(
        task={"landmarks": ["A", "B", "C"], "missing": "allow"},
        rounds=ROUNDS | {"server_momentum": 0.7},
    )
    only = lacking.sites["site-c"].data()
    for number in range(3):
        path = only / f"case{number}.mrk.json"
        marked = read_landmarks(path)
        write_landmarks(path, {"C": marked["B"]})
    store, transport = lacking.create_run(plan, min_sites=2), lacking.transport()
    honest = transport.send

    def send(parcels, deadline_s):
        honest(parcels, deadline_s)
        # After the first training round's order: the second goes to the others.
        transport.down = {102} if len(transport.sent[100]) == 1 else set()

    transport.send = send
    lacking.conduct(store, transport)
    start, first, second = models(store)
    assert rows_moved(plan, start, first) == [True, True, True]
    assert rows_moved(plan, first, second) == [True, True, False]
    np.testing.assert_array_equal(
        store.load(1).below("velocity")["heads.weight"][-plan.space.actions :],
        store.load(2).below("velocity")["heads.weight"][-plan.space.actions :],
    )


# Other modalities in one model.


def write_picture(folder, number, look, names):
    """A picture of 48 x 40 mm with a spot for each name: bright on dark, or dark on bright."""
    rng = np.random.default_rng([number, len(look)])
    y, x = np.mgrid[:40, :48]
    at = {
        name: np.array([14.0 + 18 * k, 20.0]) + rng.uniform(-4, 4, 2)
        for k, name in enumerate(names)
    }
    spots = sum(np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2) / 20) for p in at.values())
    pixels = 40 + 200 * spots if look == "x-ray" else 200 - 150 * spots + 20 * np.sin(x / 2)
    image = sitk.GetImageFromArray(np.clip(pixels, 0, 255).astype(np.uint8))
    sitk.WriteImage(image, str(folder / f"case{number}.nii.gz"))
    write_landmarks(
        folder / f"case{number}.mrk.json", {n: np.array([*p, 0.0]) for n, p in at.items()}
    )


MODALITIES = {
    "site-a": ("x-ray", ("hip", "knee")),
    "site-b": ("x-ray", ("hip", "knee")),
    "site-c": ("mri", ("pons",)),
}


def test_one_agent_learns_x_rays_at_one_site_and_slices_at_another(federation):
    for name, (look, names) in MODALITIES.items():
        site = federation.add_site(name, images=3)
        for number in range(3):
            write_picture(site.data(), number, look, names)
    plan = parse_plan(
        {
            "name": "two-looks",
            "seed": 5,
            "task": {
                "kind": "landmark-2d",
                "landmarks": ["hip", "knee", "pons"],
                "missing": "allow",
                "spacing_mm": 1.0,
                "roi": 13,
                "zooms": [1.0],
            },
            "ladder": {"scales": [2.0, 1.0], "steps_mm": [4.0, 1.0]},
            "network": {"width": 4},
            "learner": LEARNER | {"replay_capacity": 1000},
            "pose": {"shift_mm": 4.0},
            "evaluation": {"starts": 3},
            "experience": {"rows": 3, "columns": 64, "position_bins": 8},
            "rounds": ROUNDS,
        }
    )
    store, transport = federation.create_run(plan, min_sites=3), federation.transport()
    finished = federation.conduct(store, transport)
    assert (finished.verdict, finished.rounds) == ("COMPLETED", 2)
    start, after, last = models(store)
    assert rows_moved(plan, start, after) == rows_moved(plan, after, last) == [True] * 3
    # The head that one site alone has goes where that site took it, at its full length.
    alone = updates(transport, 1)[102]
    assert alone.arrays[LABELS].tolist() == [0, 0, 1]
    for name, rows in branch_rows(plan).items():
        own = np.float64(alone.arrays[name][-rows:]) / FIXED_POINT
        expected = (start[name][-rows:].astype(np.float64) + own).astype(np.float32)
        np.testing.assert_array_equal(after[name][-rows:], expected)
        assert not alone.arrays[name][:-rows].any()
    for node in (100, 101):
        sent = updates(transport, 1)[node]
        assert sent.arrays[LABELS].tolist() == [1, 1, 0]
        assert {e.label for e in report(transport, node, 3).errors} == {"hip", "knee"}
    shared = "conv1.weight"
    assert (after[shared] != start[shared]).any()
    assert sum_of(store, 1).arrays[LABELS].tolist() == [6, 6, 3]


# Private heads.

PRIVATE = {"network": {"private_heads": True}}


def test_private_heads_never_leave_and_differ_between_sites(federation):
    for name in ("site-a", "site-b"):
        add_site(federation, name, ["AB", "AB"])
    plan = plan_of(**PRIVATE)
    store, transport = federation.create_run(plan, min_sites=2), federation.transport()
    finished = federation.conduct(store, transport)
    assert (finished.verdict, finished.rounds) == ("COMPLETED", 2)
    shared, whole = set(shared_shapes(plan)), set(weight_shapes(plan))
    assert shared < whole
    first = initial_weights(plan)
    assert store.load(0).digest == weights_digest(shared_part(first, plan))
    whole_of = {}
    for node, (name, site) in zip((100, 101), federation.sites.items(), strict=True):
        for round_ in (1, 2):
            assert set(updates(transport, round_)[node].arrays) == shared
            assert set(sum_of(store, round_).arrays) == shared
        _, chain = unpack((site.worker / "state" / store.name / "chain.safetensors").read_bytes())
        assert {n.removeprefix("weights/") for n in chain if "weights/" in n} == shared
        whole_of[name] = kept(site, finished.model_sha256)
        assert set(whole_of[name]) == whole
        assert weights_digest(shared_part(whole_of[name], plan)) == finished.model_sha256
        assert report(transport, node, 3).weights_sha256 == finished.model_sha256
    assert set(store.load(2).below("model")) == shared
    for name in own_part(first, plan):
        mine, theirs = (weights[name] for weights in whole_of.values())
        assert (mine != theirs).any()
        assert (mine != first[name]).any()


def test_a_site_marks_a_new_scan_with_its_own_heads_and_the_coordinator_has_no_whole_model(
    federation, tmp_path
):
    for name in ("site-a", "site-b"):
        add_site(federation, name, ["AB", "AB"])
    plan = plan_of(**PRIVATE)
    federation.conduct(federation.create_run(plan, min_sites=2), federation.transport())
    site = federation.sites["site-a"]
    scan = next(site.data().glob("*.nii.gz"))
    words = ["play", "--model", "latest", "--site-dir", site.root, scan, "--json"]
    played = CliRunner().invoke(site_program, [str(word) for word in words])
    assert played.exception is None, played.exception
    assert {found["landmark"] for found in json.loads(played.stdout)["found"]} == {"A", "B"}
    out = ["model", "latest", "-o", tmp_path / "model", "--dir", federation.folder.root]
    refused = CliRunner().invoke(aggregator, [str(word) for word in out])
    assert isinstance(refused.exception, RefusedError)


def test_a_site_is_judged_by_its_own_heads(federation):
    for name in ("site-a", "site-b"):
        add_site(federation, name, ["AB", "AB"])
    plan = plan_of(**PRIVATE)
    store, transport = federation.create_run(plan, min_sites=2), federation.transport()
    digest = federation.conduct(store, transport).model_sha256
    site = federation.sites["site-a"]
    cases = read_site_cases(site.data(), plan, lambda *_: None)
    seed = Subject("site-a", store.name, plan, sketch_spec(plan, federation.key)).seed
    weights = kept(site, digest)
    judged = evaluate_weights(
        weights, plan, cases.task, seed ^ _EVALUATION_SEED, cases.prior, cases.labels
    )
    expected = tuple(
        task_error(name, "training", summary) for name, summary in judged.posed.items()
    )
    assert report(transport, 100, 3).errors == expected


def test_a_worker_started_anew_goes_on_with_its_own_heads_bit_for_bit(tmp_path, monkeypatch):
    anew, lived = Federation(tmp_path / "anew"), Federation(tmp_path / "lived")
    outcomes = [private_run(anew)]
    for name in ("site-a", "site-b"):
        add_site(lived, name, ["AB", "AB"])
    with ExitStack() as stack:
        workers = {
            site.root: stack.enter_context(Worker(site, threading.Event()))
            for site in lived.sites.values()
        }
        monkeypatch.setattr(conftest, "Worker", lambda site, _: Lent(workers[site.root]))
        outcomes.append(private_run(lived))
    for one, other in zip(*outcomes, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def private_run(federation):
    """All weights that the sites end with."""
    for name in sorted({"site-a", "site-b"} - set(federation.sites)):
        add_site(federation, name, ["AB", "AB"])
    store = federation.create_run(plan_of(**PRIVATE), min_sites=2)
    digest = federation.conduct(store, federation.transport()).model_sha256
    return [kept(s, digest) for _, s in sorted(federation.sites.items())]


class Lent:
    """A worker that goes on living when the test's transport has used it."""

    def __init__(self, worker):
        self.worker = worker

    def __enter__(self):
        return self.worker

    def __exit__(self, *_):
        return None


def test_both_options_together_send_neither_heads_nor_labels(lacking):
    plan = plan_of(task={"missing": "allow"}, **PRIVATE)
    store, transport = lacking.create_run(plan, min_sites=3), lacking.transport()
    finished = lacking.conduct(store, transport)
    assert (finished.verdict, finished.rounds) == ("COMPLETED", 2)
    assert set(updates(transport, 1)[101].arrays) == set(shared_shapes(plan))
    own = kept(lacking.sites["site-b"], finished.model_sha256)
    before, actions = initial_weights(plan), plan.space.actions
    assert (own["heads.weight"][:actions] != before["heads.weight"][:actions]).any()
    np.testing.assert_array_equal(own["heads.weight"][actions:], before["heads.weight"][actions:])


def test_the_next_run_starts_from_the_shared_part_and_heads_of_its_seed(federation):
    for name in ("site-a", "site-b"):
        add_site(federation, name, ["AB", "AB"])
    first = plan_of(**PRIVATE)
    store = federation.create_run(first, min_sites=2)
    digest = federation.conduct(store, federation.transport()).model_sha256
    second = plan_of(**PRIVATE, start=digest, seed=6)
    again = federation.create_run(second, "run-2", min_sites=2)
    finished = federation.conduct(again, federation.transport())
    assert (finished.verdict, again.load(0).digest) == ("COMPLETED", digest)

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError
from common.settings import CentrelineSettings, EvaluationSettings, PoseSettings
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.search import greedy_search
from site_client.agent.tasks.centreline import KNOTS, Centreline, CentrelineCase, frames_along
from site_client.agent.tasks.polylines import Lines, apart, length_of, resampled
from site_client.imaging.pyramids import Raster
from tests.made.vessels import make_vessel

SEARCHES = EvaluationSettings(starts=2, poses=1, most_steps=60)


def task_of(dim, count=2, seed=0, side=40, **settings):
    """Made vessels, laid out for tracing."""
    rng, cases = np.random.default_rng(seed), []
    for k in range(count):
        vessel = make_vessel(rng, dim, side)
        middle = (np.array(vessel.pixels.shape[::-1]) - 1) / 2
        raster = Raster(vessel.pixels[None], (1.0,) * dim, np.eye(dim))
        cases.append(CentrelineCase(str(k), raster, (vessel.line - middle,)))
    return Centreline(cases, CentrelineSettings(**settings), PoseSettings(shift_mm=3.0))


@pytest.fixture(scope="module")
def flat():
    return task_of(2)


@pytest.fixture(scope="module")
def deep():
    return task_of(3)


@pytest.fixture(params=["flat", "deep"])
def task(request):
    return request.getfixturevalue(request.param)


def test_whoever_knows_every_reward_traces_every_vessel_to_its_end(task):
    report = evaluate(task, task.rewards_of_all, SEARCHES, 1, mean_parameters(task))
    for summary in (report.posed["0"], report.native["0"]):
        assert summary.further["traced"] > 0.95
        assert summary.further["off_mm"] < 1.0
        assert summary.mean < 1.0
        assert summary.prior > 2 * summary.mean
    assert report.native["0"].consensus < 1.0


def test_a_reward_is_that_of_the_step_taken(task):
    rng = np.random.default_rng(1)
    situations = task.draw(rng, 40)
    every = task.rewards_of_all(situations)
    assert every.shape == (40, task.actions)
    assert (np.abs(every) <= 1).all()
    for action in range(task.actions):
        situations["action"] = action
        np.testing.assert_array_equal(task.step(situations).rewards, every[:, action])


def test_stopping_is_right_at_the_end_and_wrong_before_it(task):
    start = task.starts(np.random.default_rng(2), 1, posed=False)
    start["action"] = task.stop
    outcome = task.step(start)
    assert outcome.ended.all()
    assert (outcome.rewards == -1).all()
    np.testing.assert_array_equal(outcome.reached["points"], start["points"])
    task.move_to(start, task.targets(start).astype(np.float32))
    outcome = task.step(start)
    assert outcome.ended.all()
    assert (outcome.rewards == 1).all()


def test_leaving_the_image_ends_a_trace_where_it_was(task):
    at = task.starts(np.random.default_rng(3), 1, posed=False)
    at["frame"] = np.eye(task.dim)
    at["action"] = 0
    for _ in range(200):
        before = at.copy()
        at, _, ended = task.step(at)
        if ended.all():
            break
    assert ended.all()
    np.testing.assert_array_equal(at["position"], before["position"])


def test_a_trace_without_end_ends_with_its_last_point():
    task = task_of(2, count=1, longest=32, step_mm=0.5, turn_deg=30.0)
    at = task.starts(np.random.default_rng(3), 1, posed=False)
    at["action"] = 1  # round and round
    steps = 0
    ended = np.zeros(1, dtype=bool)
    while not ended.all():
        at, _, ended = task.step(at)
        steps += 1
    assert steps == 32
    assert at["points"][0] == 32


def test_the_truth_has_no_error_and_parameters_say_where_a_trace_ran(task):
    for posed in (False, True):
        at = task.starts(np.random.default_rng(4), 2, posed=posed)
        truth = task.targets(at)
        assert truth.shape == (len(at), KNOTS * task.dim)
        task.move_to(at, truth.astype(np.float32))
        np.testing.assert_allclose(task.parameters(at), truth, atol=0.35)
        assert (task.errors(at) < 0.2).all()
        assert (task.report(at)["traced"] == 1).all()
        # The first point is the seed, and the first way to go the frame's own axis.
        knots = truth.reshape(len(at), KNOTS, task.dim)
        np.testing.assert_allclose(knots[:, 0], 0, atol=1e-9)
        assert (knots[:, 1, 0] > 0).all()


def test_an_answer_that_stops_at_once_is_charged_for_what_it_did_not_trace(task):
    start = task.starts(np.random.default_rng(5), 1, posed=False)
    scale = task.lines.lengths.mean()
    assert (task.errors(start) > 0.1 * scale).all()
    assert (task.report(start)["traced"] < 0.3).all()
    assert (task.report(start)["off_mm"] < task.settings.tolerance_mm).all()


def test_what_is_seen_turns_with_the_agent(flat):
    """A vessel looks the same whichever way it runs: the picture turned is the agent turned."""
    case = np.random.default_rng(0).integers(0, 256, (41, 41)).astype(np.uint8)
    line = np.array([(-10.0, 0.0), (10.0, 0.0)])
    turned = np.stack([-line[:, 1], line[:, 0]], axis=1)  # a quarter turn, x to y
    settings = CentrelineSettings(strides_mm=(1.0,))
    seen = []
    for pixels, along in ((case, line), (np.rot90(case, -1), turned)):
        raster = Raster(np.ascontiguousarray(pixels)[None], (1.0, 1.0), np.eye(2))
        task = Centreline([CentrelineCase("x", raster, (along,))], settings, roi=13)
        at = task.starts(np.random.default_rng(0), 1, posed=False)
        at["position"], at["frame"] = along[0], frames_along(along[1:] - along[:1])
        seen.append(task.observe(at))
    np.testing.assert_array_equal(*seen)


def test_frames_stay_frames_over_a_long_trace(deep):
    at = deep.starts(np.random.default_rng(6), 1, posed=False)
    rng = np.random.default_rng(7)
    for _ in range(60):
        at["action"] = rng.integers(0, deep.actions - 1, len(at))
        at, _, _ = deep.step(at)
    product = np.einsum("nij,nik->njk", at["frame"], at["frame"])
    np.testing.assert_allclose(product, np.tile(np.eye(3), (len(at), 1, 1)), atol=1e-4)


def test_a_situation_that_goes_on_leaves_the_one_before_as_it_was(flat):
    at = flat.draw(np.random.default_rng(8), 8)
    at["action"] = 0
    before = at.copy()
    reached, _, _ = flat.step(at)
    np.testing.assert_array_equal(at, before)
    assert (reached["points"] == 2).any()


def test_greedy_searches_do_not_use_the_truth_to_end(flat):
    """Values that never stop trace on until the image or the steps end."""
    start = flat.starts(np.random.default_rng(9), 1, posed=False)
    on = np.eye(flat.actions, dtype=np.float32)[:1]
    ended = greedy_search(flat, lambda s: np.repeat(on, len(s), axis=0), start, SEARCHES)
    assert (ended["points"] > 10).all()


def test_nothing_to_trace_is_refused():
    raster = Raster(np.zeros((1, 20, 20), np.uint8), (1.0, 1.0), np.eye(2))
    with pytest.raises(InputDataError, match="nothing to trace"):
        Centreline([CentrelineCase("x", raster, ())])


def test_the_distance_of_lines_is_that_of_their_points():
    straight = np.array([(0.0, 0.0), (10.0, 0.0)])
    shifted = straight + np.array([0.0, 2.0])
    half = np.array([(0.0, 0.0), (5.0, 0.0)])
    for measured in apart(straight, shifted):
        np.testing.assert_allclose(measured, 2.0)
    off, missed = apart(half, straight)
    np.testing.assert_allclose(off, 0, atol=1e-9)
    assert missed.max() == pytest.approx(5.0)
    assert missed.mean() == pytest.approx(1.25, rel=0.05)
    assert length_of(resampled(straight, 7)) == pytest.approx(10.0)


def test_lines_know_where_along_them_a_place_is():
    lines = Lines.of(
        [np.array([(0.0, 0.0), (10.0, 0.0), (10.0, 5.0)]), np.array([(0, 0), (0, 3.0)])]
    )
    which = np.array([0, 0, 1])
    arcs = lines.arcs(which, np.array([(4.0, 1.0), (12.0, 4.0), (1.0, 9.0)]))
    np.testing.assert_allclose(arcs, [4.0, 14.0, 3.0], atol=0.26)
    np.testing.assert_allclose(
        lines.at(which, np.array([4.0, 12.0, 99.0])), [(4, 0), (10, 2), (0, 3)], atol=0.1
    )
